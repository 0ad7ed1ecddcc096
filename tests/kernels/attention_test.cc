#include "kernels/attention/attention.h"

#include "tests/support/op_tester.h"

namespace vlr::ops {
namespace {
using test::OpTester;
using Segments = std::vector<AttentionSegment>;

TEST(AttentionCheck, RefusesWhatTheContractExcludes) {
  float data[256] = {};
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
  EXPECT_EQ(message(a), "attention: q must be f32, got bf16[2, 4, 8]");
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

struct Case {
  const char* title;
  int64_t heads, kv_heads, dim;
  bool causal;
  Segments segments;
  std::string name() const {
    return std::string(title) + "_h" + std::to_string(heads) + "_kv" + std::to_string(kv_heads) +
           "_d" + std::to_string(dim) + (causal ? "_causal" : "");
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
  };
  return kAll;
}

/// Operands of a case, and its args.
struct Operands {
  Operands(OpTester<Attention>& t, const Case& c) {
    const int64_t q = c.num_q(), k = c.num_k(), p = c.num_prefix();
    args.q = t.random({q, c.heads, c.dim});
    args.k = t.random({k, c.kv_heads, c.dim});
    args.v = t.random({k, c.kv_heads, c.dim});
    if (p > 0) {
      args.prefix_k = t.random({p, c.kv_heads, c.dim});
      args.prefix_v = t.random({p, c.kv_heads, c.dim});
    }
    args.segments = c.segments;
    args.o = t.output({q, c.heads, c.dim});
    args.scale = 1 / std::sqrt(static_cast<float>(c.dim));
    args.causal = c.causal;
  }
  Attention::Args args;
};

using Param = std::tuple<const Impl<Attention>*, Case>;
class AttentionImpl : public testing::TestWithParam<Param> {};

TEST_P(AttentionImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<Attention> t(*impl, strided);
    EXPECT_TRUE(t.matches_reference(Operands(t, c).args));
  }
}
INSTANTIATE_TEST_SUITE_P(All, AttentionImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Attention>()),
                                          testing::ValuesIn(cases())),
                         test::CaseName());

TEST(AttentionBlocked, SameBitsOnEveryTargetAndThreadCount) {
  for (const Case& c : cases()) {
    OpTester<Attention> t(test::implementation<Attention>("blocked"), true);
    EXPECT_TRUE(t.same_bits_everywhere(Operands(t, c).args)) << c.name();
  }
}

/// Rows [begin, begin + count) of a [rows, ...] result of bytes.
std::vector<std::byte> rows_of(const std::vector<std::byte>& bytes, int64_t row_bytes,
                               int64_t begin, int64_t count) {
  return {bytes.begin() + begin * row_bytes, bytes.begin() + (begin + count) * row_bytes};
}

TEST(AttentionBlocked, SequenceDoesNotDependOnBatch) {
  const Case c{"batch", 4,    2,
               64,      true, {seq(0, 61, 61), seq(61, 1, 1), seq(62, 90, 90), seq(152, 33, 33)}};
  OpTester<Attention> t(test::implementation<Attention>("blocked"));
  Operands o(t, c);
  const std::vector<std::byte> all = t.run(o.args);
  const int64_t row = c.heads * c.dim * 4;
  for (const AttentionSegment& s : c.segments) {
    const Segments alone = {s};
    o.args.segments = alone;
    EXPECT_EQ(rows_of(t.run(o.args), row, s.q_begin, s.q_len),
              rows_of(all, row, s.q_begin, s.q_len));
    // The final query alone, as in the last layer.
    const Segments final_only = {{s.q_begin + s.q_len - 1, 1, s.k_begin, s.k_len, 0, 0}};
    o.args.segments = final_only;
    EXPECT_EQ(rows_of(t.run(o.args), row, s.q_begin + s.q_len - 1, 1),
              rows_of(all, row, s.q_begin + s.q_len - 1, 1));
  }
}

TEST(AttentionBlocked, PrefixDoesNotChangeBits) {
  // The same 150 keys: all of them own, then the first 1, 77, 128 as a prefix.
  const int32_t tokens = 150;
  const Case c{"prefix", 4, 2, 32, true, {seq(0, tokens, tokens)}};
  OpTester<Attention> t(test::implementation<Attention>("blocked"));
  Operands o(t, c);
  const std::vector<std::byte> all = t.run(o.args);
  const int64_t row = c.heads * c.dim * 4;
  o.args.prefix_k = o.args.k;
  o.args.prefix_v = o.args.v;
  for (int32_t shared : {1, 77, 128}) {
    const Segments split = {{shared, tokens - shared, shared, tokens - shared, 0, shared}};
    o.args.segments = split;
    EXPECT_EQ(rows_of(t.run(o.args), row, shared, tokens - shared),
              rows_of(all, row, shared, tokens - shared));
  }
}

TEST(AttentionBlocked, FutureKeysAreNotTouched) {
  // Infinite and NaN keys and values in the future of a query leave its bits alone.
  const int32_t tokens = 70;
  const Case c{"future", 2, 1, 16, true, {seq(0, tokens, tokens)}};
  OpTester<Attention> t(test::implementation<Attention>("blocked"));
  Operands o(t, c);
  const std::vector<std::byte> clean = t.run(o.args);
  const int64_t row = c.heads * c.dim * 4;
  const int32_t poisoned = 41;
  Tensor k(const_cast<void*>(o.args.k.data), DType::kF32, {tokens, 1, 16});
  Tensor v(const_cast<void*>(o.args.v.data), DType::kF32, {tokens, 1, 16});
  for (int64_t d = 0; d < 16; ++d) {
    k.row<float>(poisoned)[d] = d % 2 ? NAN : INFINITY;
    v.row<float>(poisoned)[d] = d % 2 ? -INFINITY : NAN;
  }
  const std::vector<std::byte> dirty = t.run(o.args);
  EXPECT_EQ(rows_of(dirty, row, 0, poisoned), rows_of(clean, row, 0, poisoned));
  EXPECT_TRUE(std::isnan(o.args.o.row<float>(poisoned)[0]));
}

TEST(AttentionBlocked, LargeScoresDoNotOverflow) {
  const Case c{"large", 2, 1, 64, true, {seq(0, 50, 50)}};
  OpTester<Attention> t(test::implementation<Attention>("blocked"));
  Operands o(t, c);
  o.args.scale = 3;  // scores of some tens: nearly all of the weight on one key
  const std::vector<std::byte> out = t.run(o.args);
  ASSERT_EQ(t.error(), "");
  for (size_t i = 0; i < out.size(); i += 4) {
    float value;
    std::memcpy(&value, out.data() + i, 4);
    ASSERT_TRUE(std::isfinite(value));
  }
}

TEST(AttentionBlocked, LongSequencesNeedNoMoreThanTheWorkspace) {
  // Past 10,922 keys a task takes fewer lanes, so that its scores still fit; the bits stay.
  const int32_t tokens = 12000;
  const Case c{"long", 2, 1, 8, true, {seq(0, tokens, 40)}};
  OpTester<Attention> t(test::implementation<Attention>("blocked"));
  Operands o(t, c);
  EXPECT_TRUE(t.matches_reference(o.args));
  const std::vector<std::byte> all = t.run(o.args);
  const Segments last = {{39, 1, 0, tokens, 0, 0}};
  o.args.segments = last;
  const int64_t row = c.heads * c.dim * 4;
  EXPECT_EQ(rows_of(t.run(o.args), row, 39, 1), rows_of(all, row, 39, 1));
}

}  // namespace
}  // namespace vlr::ops
