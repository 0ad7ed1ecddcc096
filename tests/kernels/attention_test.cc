#include "kernels/attention/attention.h"

#include <algorithm>

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;
using Segments = std::vector<AttentionSegment>;

TEST(AttentionCheck, RefusesWhatTheContractExcludes) {
  void* const data = nullptr;  // shapes alone are looked at
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const Segments whole = {{.q_begin = 0, .q_len = 2, .k_begin = 0, .k_len = 3}};
  const auto message = [](const Attention::Args& a) { return Attention::check(a).message(); };
  Attention::Args good{.q = f32({2, 4, 8}),
                       .k = f32({3, 2, 8}),
                       .v = f32({3, 2, 8}),
                       .prefix_k = {},
                       .prefix_v = {},
                       .segments = whole,
                       .o = f32({2, 4, 8})};
  EXPECT_EQ(message(good), "");
  Attention::Args a = good;
  a.k = f32({3, 2, 7});
  EXPECT_EQ(message(a), "attention: k must be [?, ?, 8], got f32[3, 2, 7]");
  a = good;
  a.k = a.v = f32({3, 3, 8});
  EXPECT_EQ(message(a), "attention: heads of q must be a multiple of those of k, got 4 and 3");
  a = good;
  a.o = f32({3, 4, 8});
  EXPECT_EQ(message(a), "attention: o must be [2, 4, 8], got f32[3, 4, 8]");
  a = good;
  a.q.dtype = DType::kBF16;
  EXPECT_EQ(message(a), "attention: k must be bf16, got f32[3, 2, 8]");
  a.q.dtype = DType::kI32;
  EXPECT_EQ(message(a), "attention: q must be f32 | bf16 | f16, got i32[2, 4, 8]");
  a = good;
  a.table.segments = ConstTensor(data, DType::kI32, {1, 5});
  EXPECT_EQ(message(a), "attention: table.segments must be [?, 6], got i32[1, 5]");
  a = good;
  a.table.tiles = ConstTensor(data, DType::kF32, {1, 2});
  EXPECT_EQ(message(a), "attention: table.tiles must be i32, got f32[1, 2]");
  const auto segment_message = [&](AttentionSegment s, bool causal) {
    Attention::Args b = good;
    const Segments segments = {s};
    b.segments = segments;
    b.causal = causal;
    return message(b);
  };
  EXPECT_EQ(
      segment_message({.q_begin = 1, .q_len = 2, .k_begin = 0, .k_len = 3}, false).substr(0, 36),
      "attention: segment 0 does not fit: q");
  EXPECT_NE(segment_message({.q_begin = 0, .q_len = 2, .k_begin = 1, .k_len = 3}, false), "");
  EXPECT_NE(segment_message({.q_begin = 0, .q_len = 1, .k_begin = 0, .k_len = 0}, false), "");
  EXPECT_NE(
      segment_message({.q_begin = 0, .q_len = 1, .k_begin = 0, .k_len = 1, .prefix_len = 1}, false),
      "");
  EXPECT_NE(segment_message({.q_begin = 0, .q_len = 2, .k_begin = 0, .k_len = 1}, true), "");
  EXPECT_EQ(segment_message({.q_begin = 0, .q_len = 2, .k_begin = 0, .k_len = 2}, true), "");
}

TEST(AttentionReference, IsWhatTheFormulaSays) {
  // One head of dimension 1; scores are 0 and ln 3, so the second key weighs three times the first.
  const float q[] = {1, 1}, k[] = {0, std::log(3.0f)}, v[] = {10, 20};
  float o[2];
  const Segments segments = {{.q_begin = 0, .q_len = 2, .k_begin = 0, .k_len = 2}};
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  Attention::Args a{.q = ConstTensor(q, DType::kF32, {2, 1, 1}),
                    .k = ConstTensor(k, DType::kF32, {2, 1, 1}),
                    .v = ConstTensor(v, DType::kF32, {2, 1, 1}),
                    .prefix_k = {},
                    .prefix_v = {},
                    .segments = segments,
                    .o = Tensor(o, DType::kF32, {2, 1, 1}),
                    .scale = 1,
                    .causal = false};
  ASSERT_TRUE(test::implementation<Attention>("reference").run(a, ctx).ok());
  EXPECT_NEAR(o[0], 17.5, 1e-5);
  EXPECT_NEAR(o[1], 17.5, 1e-5);
  a.causal = true;
  ASSERT_TRUE(test::implementation<Attention>("reference").run(a, ctx).ok());
  EXPECT_EQ(o[0], 10);
  EXPECT_NEAR(o[1], 17.5, 1e-5);
}

TEST(AttentionTiles, CoverTheQueriesMostWorkFirst) {
  const Segments segments = {{0, 300, 0, 300, 0, 0},
                             {300, 0, 300, 400, 0, 0},
                             {300, 1, 700, 128, 0, 0},
                             {301, 128, 828, 128, 0, 150}};
  // Keys of the last query: 128, 256 and 300; 128; 278.
  EXPECT_EQ(attention_tiles(segments, true),
            (std::vector<int32_t>{0, 256, 3, 0, 0, 128, 0, 0, 2, 0}));
  // 300, of one tile; 128; 278.
  EXPECT_EQ(attention_tiles(segments, false), (std::vector<int32_t>{0, 0, 3, 0, 2, 0}));
  const Segments long_one = {{0, 800, 0, 800, 0, 0}};
  EXPECT_EQ(attention_tiles(long_one, false), (std::vector<int32_t>{0, 0, 0, 384, 0, 768}));
  EXPECT_EQ(attention_tiles({}, true), std::vector<int32_t>());
}

struct Case {
  const char* title;
  int64_t heads, kv_heads, dim;
  bool causal;
  Segments segments;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::string(title) + "_h" + std::to_string(heads) + "_kv" + std::to_string(kv_heads) +
           "_d" + std::to_string(dim) + (causal ? "_causal_" : "_") +
           std::string(dtype_name(dtype));
  }
  int64_t rows(int32_t AttentionSegment::*begin, int32_t AttentionSegment::*len) const {
    int64_t rows = 0;
    for (const AttentionSegment& s : segments) rows = std::max<int64_t>(rows, s.*begin + s.*len);
    return rows;
  }
  int64_t num_q() const { return rows(&AttentionSegment::q_begin, &AttentionSegment::q_len); }
  int64_t num_k() const { return rows(&AttentionSegment::k_begin, &AttentionSegment::k_len); }
  int64_t num_prefix() const {
    return rows(&AttentionSegment::prefix_begin, &AttentionSegment::prefix_len);
  }
};

/// A sequence at row `at` of q, k and v, of `len` tokens, the last `queries` of which ask.
AttentionSegment seq(int32_t at, int32_t len, int32_t queries, int32_t prefix_begin = 0,
                     int32_t prefix_len = 0) {
  return {at, queries, at, len, prefix_begin, prefix_len};
}

/// Lengths around the tiles of 128 queries and the blocks of 64 keys, with a row between two
/// sequences that belongs to none.
Segments ragged() {
  Segments out;
  int32_t at = 0;
  for (int32_t len : {1, 127, 0, 128, 129, 300, 64, 65}) {
    out.push_back(seq(at, len, len));
    at += len + 1;
  }
  return out;
}

/// Lengths around the tiles of 192 and 384 queries and the last blocks of keys, cut to 32.
Segments edges() {
  Segments out;
  int32_t at = 0;
  for (int32_t len : {2, 31, 33, 63, 97, 191, 192, 193, 383, 385}) {
    out.push_back(seq(at, len, len));
    at += len;
  }
  return out;
}

/// Prefixes of 0 to 127 keys, in one buffer of 300, each shared by two sequences.
Segments prefixed() {
  Segments out;
  int32_t at = 0;
  for (int32_t prefix : {0, 1, 60, 64, 127}) {
    for (int32_t len : {5, 70}) {
      out.push_back(seq(at, len, len, 2 * prefix, prefix));
      at += len;
    }
  }
  return out;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kAll = {
      {"none", 2, 1, 8, true, {}},
      {"one", 1, 1, 1, true, {seq(0, 1, 1)}},
      {"tiny", 3, 1, 5, true, {seq(0, 3, 3)}},
      {"whole", 2, 2, 72, false, {seq(0, 37, 37), seq(37, 100, 100)}},
      {"vision", 4, 4, 64, false, {seq(0, 150, 150)}},
      {"group2", 4, 2, 128, true, {seq(0, 61, 61), seq(61, 1, 1), seq(62, 200, 200)}},
      {"group4", 8, 2, 64, true, {seq(0, 45, 45), seq(45, 16, 16)}},
      {"group5", 10, 2, 24, true, {seq(0, 19, 19)}},
      {"group60", 60, 1, 9, true, {seq(0, 7, 7)}},
      {"last", 4, 2, 128, true, {seq(0, 40, 1), seq(40, 129, 1), seq(169, 300, 2)}},
      {"prefix", 4, 2, 64, true, {seq(0, 20, 20, 0, 33), seq(20, 50, 50, 33, 130), seq(70, 5, 5)}},
      {"prefix_only", 2, 1, 16, false, {{0, 3, 0, 0, 0, 9}}},
      {"prefix_last", 4, 2, 32, true, {seq(0, 20, 1, 5, 33), seq(20, 50, 1, 0, 130)}},
      {"no_queries", 2, 1, 16, true, {seq(0, 4, 0), seq(4, 4, 4)}},
      {"ragged", 2, 1, 128, true, ragged()},
      {"ragged", 2, 2, 128, false, ragged()},
      {"ragged", 2, 2, 72, false, ragged()},
      {"ragged", 2, 1, 72, true, ragged()},
      {"ragged", 2, 2, 64, false, ragged()},
      {"ragged", 4, 1, 64, true, ragged()},
      {"edges", 4, 1, 128, true, edges()},
      {"edges", 1, 1, 72, false, edges()},
      {"edges", 1, 1, 64, false, edges()},
      {"group8", 16, 2, 128, true, {seq(0, 61, 61), seq(61, 1, 1), seq(62, 37, 2)}},
      {"prefixed", 2, 2, 64, true, prefixed()},
      {"prefixed", 4, 1, 128, true, prefixed()},
      {"prefixed", 2, 1, 72, false, prefixed()},
      {"small", 2, 1, 8, true, {seq(0, 70, 70)}},
      {"small", 2, 1, 16, false, {seq(0, 70, 70)}},
      {"small", 2, 1, 32, true, {seq(0, 140, 140)}},
      {"small", 2, 1, 40, true, {seq(0, 70, 70)}},
      {"small", 2, 2, 48, false, {seq(0, 70, 70)}},
      {"small", 2, 1, 80, true, {seq(0, 140, 140)}},
      {"small", 2, 1, 96, false, {seq(0, 140, 140)}},
      {"small", 2, 1, 104, true, {seq(0, 70, 70)}},
  };
  return kAll;
}

/// How a test's operands lie in memory.
enum class Layout {
  kDense,
  kGaps,     // gaps between rows and between heads, of odd sizes
  kColumns,  // q, k and v are columns of one matrix, so are prefix_k and _v; o of a wider one
};

/// Operands of a case, and its args. Rows that belong to no sequence hold NaN.
struct Operands {
  /// `size`: of the values.
  Operands(OpTester<Attention>& t, const Case& c, Layout layout = Layout::kDense, double size = 1)
      : tester(t) {
    const int64_t q = c.num_q(), k = c.num_k(), p = c.num_prefix(), d = c.dim;
    const int64_t q_width = c.heads * d, kv_width = c.kv_heads * d;
    if (layout == Layout::kColumns) {
      const Tensor qkv = t.random_dense({std::max(q, k), q_width + 2 * kv_width}, c.dtype);
      args.q = qkv.slice(0, 0, q).slice(1, 0, q_width).split_last(d);
      args.k = qkv.slice(0, 0, k).slice(1, q_width, kv_width).split_last(d);
      args.v = qkv.slice(0, 0, k).slice(1, q_width + kv_width, kv_width).split_last(d);
      args.o = t.output({q, 8 + q_width}, c.dtype).slice(1, 8, q_width).split_last(d);
    } else {
      args.q = t.random({q, c.heads, d}, c.dtype);
      args.k = t.random({k, c.kv_heads, d}, c.dtype);
      args.v = t.random({k, c.kv_heads, d}, c.dtype, size);
      args.o = t.output({q, c.heads, d}, c.dtype);
    }
    if (p > 0 && layout == Layout::kColumns) {
      const Tensor kv = t.random_dense({p, 2 * kv_width}, c.dtype);
      args.prefix_k = kv.slice(1, 0, kv_width).split_last(d);
      args.prefix_v = kv.slice(1, kv_width, kv_width).split_last(d);
    } else if (p > 0) {
      args.prefix_k = t.random({p, c.kv_heads, d}, c.dtype);
      args.prefix_v = t.random({p, c.kv_heads, d}, c.dtype, size);
    }
    args.scale = 1 / std::sqrt(static_cast<float>(d));
    args.causal = c.causal;
    set_segments(c.segments);
    poison(args.q, &AttentionSegment::q_begin, &AttentionSegment::q_len);
    poison(args.k, &AttentionSegment::k_begin, &AttentionSegment::k_len);
    poison(args.v, &AttentionSegment::k_begin, &AttentionSegment::k_len);
    for (const ConstTensor& prefix : {args.prefix_k, args.prefix_v})
      if (p > 0) poison(prefix, &AttentionSegment::prefix_begin, &AttentionSegment::prefix_len);
  }

  /// Other sequences in the same memory: the host's list and the device's table.
  void set_segments(Segments s) {
    segments = std::move(s);
    args.segments = segments;
    std::vector<int32_t> tiles = attention_tiles(segments, args.causal);
    tiles.insert(tiles.end(), {-1, 0});  // a row past the last one that counts
    const auto num_tiles = static_cast<int64_t>(tiles.size()) / 2;
    const auto num_segments = static_cast<int64_t>(segments.size());
    const Tensor segment_rows = tester.random_dense({num_segments, 6}, DType::kI32);
    const Tensor tile_rows = tester.random_dense({num_tiles, 2}, DType::kI32);
    static_assert(sizeof(AttentionSegment) == 6 * sizeof(int32_t));
    std::copy(segments.begin(), segments.end(), segment_rows.as<AttentionSegment>());
    std::copy(tiles.begin(), tiles.end(), tile_rows.as<int32_t>());
    args.table = {.segments = segment_rows, .tiles = tile_rows};
  }

  /// Row r of head h, of any of the operands.
  static void fill(const ConstTensor& t, int64_t r, int64_t h, float even, float odd) {
    const Tensor to(const_cast<void*>(t.data), t.dtype, {1});
    for (int64_t d = 0; d < t.dim(2); ++d)
      store_f32(to, r * t.stride(0) + h * t.stride(1) + d, d % 2 ? odd : even);
  }

  OpTester<Attention>& tester;
  Segments segments;
  Attention::Args args;

 private:
  void poison(const ConstTensor& t, int32_t AttentionSegment::*begin,
              int32_t AttentionSegment::*len) {
    for (int64_t r = 0; r < t.dim(0); ++r) {
      const auto has_row = [&](const AttentionSegment& s) {
        return s.*begin <= r && r < s.*begin + s.*len;
      };
      if (std::ranges::any_of(segments, has_row)) continue;
      for (int64_t h = 0; h < t.dim(1); ++h) fill(t, r, h, NAN, NAN);
    }
  }
};

using Param = std::tuple<const Impl<Attention>*, Case>;

/// Every implementation with the cases that it supports, in each dtype.
std::vector<Param> params(const std::vector<Case>& all) {
  std::vector<Param> out;
  for (const Impl<Attention>* impl : test::candidates<Attention>()) {
    for (Case c : all) {
      for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
        c.dtype = dtype;
        Attention::Args shapes;
        shapes.q = ConstTensor(nullptr, dtype, {c.num_q(), c.heads, c.dim});
        shapes.k = shapes.v = ConstTensor(nullptr, dtype, {c.num_k(), c.kv_heads, c.dim});
        if (c.num_prefix() > 0)
          shapes.prefix_k = shapes.prefix_v =
              ConstTensor(nullptr, dtype, {c.num_prefix(), c.kv_heads, c.dim});
        shapes.o = Tensor(nullptr, dtype, {c.num_q(), c.heads, c.dim});
        if (supports(*impl, shapes, Context())) out.emplace_back(impl, c);
      }
    }
  }
  return out;
}

/// Each operand once, and of it what segments name: two sequences share a prefix of 5 rows, a third
/// has one that overlaps it by 2 rows, a fourth has no queries; of 100 rows of prefixes 7 count.
TEST(AttentionCost, CountsTheRowsThatSegmentsName) {
  const Segments segments = {
      {.q_begin = 0, .q_len = 2, .k_begin = 0, .k_len = 2, .prefix_begin = 10, .prefix_len = 5},
      {.q_begin = 2, .q_len = 1, .k_begin = 2, .k_len = 1, .prefix_begin = 10, .prefix_len = 5},
      {.q_begin = 3, .q_len = 1, .k_begin = 3, .k_len = 3, .prefix_begin = 13, .prefix_len = 4},
      {.q_begin = 0, .q_len = 0, .k_begin = 6, .k_len = 2, .prefix_begin = 50, .prefix_len = 9}};
  const auto bf16 = [](std::initializer_list<int64_t> dims) {
    return Tensor(nullptr, DType::kBF16, dims);
  };
  const Attention::Args a{.q = bf16({6, 4, 8}),  // two rows of no sequence
                          .k = bf16({9, 2, 8}),
                          .v = bf16({9, 2, 8}),
                          .prefix_k = bf16({100, 2, 8}),
                          .prefix_v = bf16({100, 2, 8}),
                          .segments = segments,
                          .o = bf16({6, 4, 8}),
                          .causal = true};
  const Cost cost = Attention::cost(a);
  // q and o: 4 rows of 4 heads; k and v: 6 rows of their own and 7 of prefixes, of 2 heads.
  EXPECT_EQ(cost.bytes, 2 * 8 * (2 * 4 * 4 + 2 * (6 + 7) * 2));
  // Visible keys: 6 and 7, 6, 7.
  EXPECT_EQ(cost.flops, 4 * (6 + 7 + 6 + 7) * 4 * 8);
}

class AttentionImpl : public test::ImplTest<Param> {};

TEST_P(AttentionImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (Layout layout : {Layout::kDense, Layout::kGaps, Layout::kColumns}) {
    OpTester<Attention> t(*impl, layout == Layout::kGaps);
    const Operands o(t, c, layout);
    if (!test::takes(*impl, o.args)) continue;
    EXPECT_TRUE(t.matches_reference(o.args)) << "layout " << static_cast<int>(layout);
  }
}

/// Values of another size make the result, and what rounding leaves in it, as many times as large.
TEST_P(AttentionImpl, IsAsExactForValuesOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  for (double size : {1e-3, 1e3}) {
    OpTester<Attention> t(*impl);
    const Operands o(t, c, Layout::kDense, size);
    if (!test::takes(*impl, o.args)) continue;
    EXPECT_TRUE(t.matches_reference(o.args, {}, size)) << size;
  }
}

TEST_P(AttentionImpl, HasTheSameBitsEverywhere) {
  const auto& [impl, c] = GetParam();
  const bool gaps = c.dtype == DType::kF32;
  OpTester<Attention> t(*impl, gaps);
  const Operands o(t, c, gaps ? Layout::kGaps : Layout::kColumns);
  EXPECT_TRUE(t.same_bits_everywhere(o.args));
}
INSTANTIATE_TEST_SUITE_P(All, AttentionImpl, testing::ValuesIn(params(cases())), test::CaseName());

/// Sequences that nobody chose: one to three, with or without a prefix, of which all or the last
/// queries ask. The last case has many.
struct AnySequences {
  Case c;
  bool strided() const { return c.dim % 8 != 0; }  // what kernels on a device do not take anyway
  std::string name() const { return c.name() + " " + std::to_string(c.num_q()) + " queries"; }
};
std::vector<AnySequences> any_sequences() {
  std::mt19937_64 rng(test::shapes_seed());
  const auto below = [&](int32_t n) {
    return static_cast<int32_t>(rng() % static_cast<uint64_t>(n));
  };
  std::vector<AnySequences> out;
  for (int i = 0; i < 12; ++i) {
    const int64_t kv_heads = 1 + below(2), group = 1 + below(3),
                  dim = i % 2 ? 8 * (1 + below(16)) : 1 + below(80);
    Case c{"any", kv_heads * group, kv_heads, dim, below(2) == 0, {}};
    for (int32_t at = 0, n = 1 + below(3); n > 0; --n) {
      const int32_t keys = 1 + below(140), queries = below(3) ? keys : 1 + below(keys);
      const int32_t prefix = below(2) ? below(90) : 0, prefix_begin = below(9);
      c.segments.push_back(seq(at, keys, queries, prefix_begin, prefix));
      at += keys;
    }
    out.push_back({c});
  }
  const int32_t many = 401 + below(100);
  out.push_back({{"any", 1, 1, 16, true, {seq(0, many, many)}}});
  return out;
}

class AttentionAnyShape : public test::ImplTest<const Impl<Attention>*> {};
TEST_P(AttentionAnyShape, MatchesReference) {
  std::vector<std::unique_ptr<Operands>> kept;  // the segments that args point to
  const auto make = [&](auto& t, const AnySequences& s, DType dtype) {
    Case c = s.c;
    c.dtype = dtype;
    kept.push_back(std::make_unique<Operands>(t, c, Layout::kGaps));
    return kept.back()->args;
  };
  EXPECT_TRUE(
      test::matches_in_any(*GetParam(), any_sequences(), make, {.rows = &Attention::Args::q}));
}
INSTANTIATE_TEST_SUITE_P(All, AttentionAnyShape, testing::ValuesIn(test::candidates<Attention>()),
                         test::ImplName());

/// What a row's bits may depend on.
class AttentionBits : public test::ImplTest<Param> {
 protected:
  AttentionBits() : t_(*std::get<0>(GetParam())), c_(std::get<1>(GetParam())) {}

  /// Rows [begin, begin + count) of a result.
  std::vector<std::byte> rows_of(const std::vector<std::byte>& bytes, int64_t begin,
                                 int64_t count) const {
    const int64_t row = c_.heads * c_.dim * dtype_bytes(c_.dtype);
    if (static_cast<int64_t>(bytes.size()) < (begin + count) * row) return {};  // it failed
    return {bytes.begin() + begin * row, bytes.begin() + (begin + count) * row};
  }
  std::vector<std::byte> run(Operands& o, const Segments& segments) {
    o.set_segments(segments);
    std::vector<std::byte> out = t_.run(o.args);
    EXPECT_EQ(t_.error(), "");
    return out;
  }

  OpTester<Attention> t_;
  Case c_;
};

TEST_P(AttentionBits, DoNotDependOnBatch) {
  c_.segments = prefixed();
  for (const AttentionSegment& s : ragged()) {
    const auto at = static_cast<int32_t>(c_.num_q());
    c_.segments.push_back(seq(at, s.k_len, s.q_len));
  }
  Operands o(t_, c_);
  if (!test::takes(*std::get<0>(GetParam()), o.args)) {
    o.args.prefix_k = o.args.prefix_v = {};
    std::erase_if(c_.segments, [](const AttentionSegment& s) { return s.prefix_len > 0; });
  }
  const std::vector<std::byte> all = run(o, c_.segments);
  Segments reversed = c_.segments;
  std::ranges::reverse(reversed);
  EXPECT_EQ(run(o, reversed), all);
  for (const AttentionSegment& s : c_.segments) {
    EXPECT_EQ(rows_of(run(o, {s}), s.q_begin, s.q_len), rows_of(all, s.q_begin, s.q_len));
    // The final queries alone, as in the last layer.
    for (int32_t last : {1, 2, 40}) {
      if (s.q_len < last) continue;
      AttentionSegment final_only = s;
      final_only.q_begin += s.q_len - last;
      final_only.q_len = last;
      EXPECT_EQ(rows_of(run(o, {final_only}), final_only.q_begin, last),
                rows_of(all, final_only.q_begin, last));
    }
  }
}

TEST_P(AttentionBits, DoNotDependOnPrefix) {
  // The same 150 keys: all of them own, then some of them as a prefix.
  const int32_t tokens = 150;
  c_.segments = {seq(0, tokens, tokens)};
  Operands o(t_, c_);
  const std::vector<std::byte> all = run(o, c_.segments);
  o.args.prefix_k = o.args.k;
  o.args.prefix_v = o.args.v;
  if (!test::takes(*std::get<0>(GetParam()), o.args)) GTEST_SKIP() << "it takes no prefix";
  for (int32_t shared : {1, 60, 64, 77, 127, 128}) {
    const Segments split = {{shared, tokens - shared, shared, tokens - shared, 0, shared}};
    EXPECT_EQ(rows_of(run(o, split), shared, tokens - shared),
              rows_of(all, shared, tokens - shared));
  }
}

TEST_P(AttentionBits, DoNotDependOnThePlaceInATile) {
  // The last queries alone: with every number of them a query has another row of its tile.
  const int32_t tokens = 197;
  c_.segments = {seq(0, tokens, tokens)};
  Operands o(t_, c_);
  const std::vector<std::byte> all = run(o, c_.segments);
  for (int32_t n = 1; n < tokens; n += n < 40 ? 1 : 13) {
    const Segments last = {{tokens - n, n, 0, tokens, 0, 0}};
    EXPECT_EQ(rows_of(run(o, last), tokens - n, n), rows_of(all, tokens - n, n)) << n;
  }
}

TEST_P(AttentionBits, DoNotDependOnFutureKeys) {
  // Infinite and NaN keys in the future of a query leave its bits alone, and so do values; those
  // of 16 bits have to be finite, as the contract says.
  const int32_t tokens = 170;
  if (!c_.causal) GTEST_SKIP() << "every query sees everything";
  c_.segments = {seq(0, tokens, tokens)};
  Operands o(t_, c_);
  const std::vector<std::byte> clean = run(o, c_.segments);
  const int32_t poisoned = 141;
  for (int64_t h = 0; h < c_.kv_heads; ++h) {
    Operands::fill(o.args.k, poisoned, h, INFINITY, NAN);
    const bool wide = c_.dtype == DType::kF32;
    Operands::fill(o.args.v, poisoned, h, wide ? NAN : 60000, wide ? -INFINITY : -60000);
  }
  const std::vector<std::byte> dirty = t_.run(o.args);
  EXPECT_EQ(rows_of(dirty, 0, poisoned), rows_of(clean, 0, poisoned));
  EXPECT_TRUE(std::isnan(load_f32(o.args.o, poisoned * o.args.o.stride(0))));
}

TEST_P(AttentionBits, StayFiniteWithLargeScores) {
  c_.segments = {seq(0, 90, 90)};
  Operands o(t_, c_);
  o.args.scale = 3;  // scores of some tens: nearly all of the weight on one key
  t_.run(o.args);
  ASSERT_EQ(t_.error(), "");
  for (int64_t i = 0; i < o.args.o.numel(); ++i) ASSERT_TRUE(std::isfinite(load_f32(o.args.o, i)));
}

TEST_P(AttentionBits, DoNotDependOnQueriesOfALongSequence) {
  // Past 10,922 keys a task of attention/blocked takes fewer lanes, so that its scores still fit.
  const int32_t tokens = 12000;
  const int64_t dim = c_.dtype == DType::kF32 ? 8 : 64;  // kernels for tensor cores have few sizes
  const Case c{"long", 2, 1, dim, true, {{0, 40, 0, tokens, 0, 0}}, c_.dtype};
  c_ = c;
  Operands o(t_, c_);
  EXPECT_TRUE(t_.matches_reference(o.args));
  const std::vector<std::byte> all = run(o, c_.segments);
  EXPECT_EQ(rows_of(run(o, {{39, 1, 0, tokens, 0, 0}}), 39, 1), rows_of(all, 39, 1));
}

TEST_P(AttentionBits, TakeAnyNumberOfSequences) {
  // With four heads to a tile's row more tiles than an axis of a grid has blocks.
  constexpr int32_t kMany = 17000;
  c_ = {"many", 4, 1, 64, true, {}, c_.dtype};
  for (int32_t i = 0; i < kMany; ++i) c_.segments.push_back(seq(i, 1, 1));
  Operands o(t_, c_);
  if (!test::takes(*std::get<0>(GetParam()), o.args)) GTEST_SKIP() << "it takes fewer";
  const std::vector<std::byte> all = run(o, c_.segments);
  for (const int32_t i : {0, 1, 131, 132, 16383, 16384, kMany - 1})
    EXPECT_EQ(rows_of(run(o, {seq(i, 1, 1)}), i, 1), rows_of(all, i, 1));
}

/// Implementations that are wrong, or right, at the sizes of long sequences.
constexpr int32_t kManyKeys = 8192, kBlock = 64;

/// The reference, on keys [0, prefix) and [own, n) of one sequence of n keys.
Status on_keys(const Attention::Args& a, int32_t prefix, int32_t own, Context& ctx) {
  Attention::Args other = a;
  const auto n = static_cast<int32_t>(a.k.dim(0));
  other.prefix_k = a.k;
  other.prefix_v = a.v;
  const Segments split = {{0, static_cast<int32_t>(a.q.dim(0)), own, n - own, 0, prefix}};
  other.segments = split;
  return test::implementation<Attention>("reference").run(other, ctx);
}
Status leaves_out_the_first_block(const Attention::Args& a, Context& ctx) {
  return on_keys(a, 0, kBlock, ctx);
}
Status leaves_out_a_block(const Attention::Args& a, Context& ctx) {
  return on_keys(a, 1024, 1024 + kBlock, ctx);
}
Status doubles_a_block(const Attention::Args& a, Context& ctx) {
  return on_keys(a, 1024 + kBlock, 1024, ctx);
}
/// As a kernel on tensor cores: p is rounded before its product with a value, sums are f32.
Status rounds_weights(const Attention::Args& a, Context&) {
  const int64_t group = a.q.dim(1) / a.k.dim(1), dim = a.q.dim(2), keys = a.k.dim(0);
  const auto load = [&](const ConstTensor& t, int64_t r, int64_t h, int64_t d) {
    return load_f32(t, r * t.stride(0) + h * t.stride(1) + d);
  };
  std::vector<float> s(static_cast<size_t>(keys));
  for (int64_t i = 0; i < a.q.dim(0); ++i) {
    for (int64_t h = 0; h < a.q.dim(1); ++h) {
      for (int64_t j = 0; j < keys; ++j) {
        float dot = 0;
        for (int64_t d = 0; d < dim; ++d) dot += load(a.q, i, h, d) * load(a.k, j, h / group, d);
        s[static_cast<size_t>(j)] = a.scale * dot;
      }
      // Up to 2^8 below the largest score, as the contract allows.
      const float reference = *std::ranges::max_element(s) - 5;
      std::vector<float> o(static_cast<size_t>(dim));
      float sum = 0;
      for (int64_t j = 0; j < keys; ++j) {
        const float p = std::exp(s[static_cast<size_t>(j)] - reference);
        sum += p;
        for (int64_t d = 0; d < dim; ++d)
          o[static_cast<size_t>(d)] += round_to(a.q.dtype, p) * load(a.v, j, h / group, d);
      }
      for (int64_t d = 0; d < dim; ++d)
        store_f32(a.o, i * a.o.stride(0) + h * a.o.stride(1) + d, o[static_cast<size_t>(d)] / sum);
    }
  }
  return {};
}

/// One sequence of so many keys, of which the last asks.
testing::AssertionResult matches_with(Status (*run)(const Attention::Args&, Context&), DType dtype,
                                      int32_t keys, int64_t dim, double size = 1) {
  const Impl<Attention> impl{"planted", Device::kCpu, run};
  OpTester<Attention> t(impl);
  const Operands o(t, {"long", 1, 1, dim, false, {{0, 1, 0, keys, 0, 0}}, dtype}, Layout::kDense,
                   size);
  return t.matches_reference(o.args, {}, size);
}

TEST(AttentionTolerance, SeesABlockOfALongSequence) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto run : {leaves_out_the_first_block, leaves_out_a_block, doubles_a_block})
      EXPECT_FALSE(matches_with(run, dtype, kManyKeys, 64)) << dtype_name(dtype);
  }
  EXPECT_TRUE(matches_with(rounds_weights, DType::kBF16, kManyKeys, 64));
  EXPECT_FALSE(matches_with(leaves_out_a_block, DType::kBF16, 4 * kManyKeys, 64));
}

TEST(AttentionTolerance, IsThatOfWeightsOf16Bits) {
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    for (int32_t keys : {1, 2, 3, 63, 300}) {
      for (int64_t dim : {1, 8, 16, 72, 128}) {
        for (double size : {1e-3, 1.0, 1e3})
          EXPECT_TRUE(matches_with(rounds_weights, dtype, keys, dim, size))
              << dtype_name(dtype) << " " << keys << " " << dim << " " << size;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionBits,
                         testing::ValuesIn(params({{"bits", 2, 1, 128, true, {}},
                                                   {"bits", 2, 2, 72, true, {}},
                                                   {"bits", 2, 2, 72, false, {}},
                                                   {"bits", 4, 1, 64, true, {}},
                                                   {"bits", 2, 1, 32, true, {}}})),
                         test::CaseName());

}  // namespace
}  // namespace vlr::ops
