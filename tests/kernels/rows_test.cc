// The ops that move rows about: embedding, gather_rows, deepstack_add, convert: by hand, what is
// refused, and every other implementation against the reference.

#include "kernels/convert/convert.h"
#include "kernels/deepstack_add/deepstack_add.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gather_rows/gather_rows.h"
#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {

template <class Op>
Status run_one(const typename Op::Args& args) {
  ThreadPool pool(2);
  Context ctx;
  ctx.threads = &pool;
  return run<Op>(args, ctx);
}

ConstTensor indices(const std::vector<int32_t>& v) {
  return {v.data(), DType::kI32, {static_cast<int64_t>(v.size())}};
}

TEST(Embedding, PutsVisualRowsInTheirPlaces) {
  const std::vector<int32_t> ids = {2, 99, 0}, visual_row = {-1, 1, -1};  // 99 is not read
  const std::vector<uint16_t> table = {f32_to_bf16(1), f32_to_bf16(2), f32_to_bf16(3),
                                       f32_to_bf16(4), f32_to_bf16(5), f32_to_bf16(6)};
  const float visual[] = {10, 11, 12, 13};
  float y[6];
  const Embedding::Args a{.ids = indices(ids),
                          .visual_row = indices(visual_row),
                          .table = ConstTensor(table.data(), DType::kBF16, {3, 2}),
                          .visual = ConstTensor(visual, DType::kF32, {2, 2}),
                          .y = Tensor(y, DType::kF32, {3, 2})};
  ASSERT_TRUE(run_one<Embedding>(a).ok());
  EXPECT_EQ(std::vector<float>(y, y + 6), (std::vector<float>{5, 6, 12, 13, 1, 2}));
}

TEST(Embedding, RefusesIndicesOutOfRange) {
  const float table[] = {1, 2, 3, 4};
  float y[2];
  const auto status = [&](int32_t id, int32_t visual) {
    const std::vector<int32_t> ids = {id}, rows = {visual};
    return run_one<Embedding>({.ids = indices(ids),
                               .visual_row = indices(rows),
                               .table = ConstTensor(table, DType::kF32, {2, 2}),
                               .visual = {},
                               .y = Tensor(y, DType::kF32, {1, 2})});
  };
  EXPECT_TRUE(status(1, -1).ok());
  EXPECT_EQ(status(2, -1).message(), "embedding: ids[0] = 2 of 2 rows");
  EXPECT_EQ(status(-1, -1).message(), "embedding: ids[0] = -1 of 2 rows");
  EXPECT_EQ(status(0, 0).message(), "embedding: visual_row[0] = 0 of 0 rows");
}

TEST(GatherRows, PicksRows) {
  const float x[] = {1, 2, /**/ 3, 4, /**/ 5, 6};
  float y[6];
  const std::vector<int32_t> rows = {2, 0, 2};
  const GatherRows::Args a{.x = ConstTensor(x, DType::kF32, {3, 2}),
                           .rows = indices(rows),
                           .y = Tensor(y, DType::kF32, {3, 2})};
  ASSERT_TRUE(run_one<GatherRows>(a).ok());
  EXPECT_EQ(std::vector<float>(y, y + 6), (std::vector<float>{5, 6, 1, 2, 5, 6}));
}

TEST(GatherRows, RefusesRowsOutOfRange) {
  const float x[] = {1, 2};
  float y[2];
  for (int32_t row : {-1, 1}) {
    const std::vector<int32_t> rows = {row};
    const Status s = run_one<GatherRows>({.x = ConstTensor(x, DType::kF32, {1, 2}),
                                          .rows = indices(rows),
                                          .y = Tensor(y, DType::kF32, {1, 2})});
    EXPECT_EQ(s.message(), "gather_rows: rows[0] = " + std::to_string(row) + " of 1");
  }
}

TEST(DeepstackAdd, AddsToVisualRowsOnly) {
  const float features[] = {10, 20};
  const std::vector<int32_t> visual_row = {-1, 0};
  for (bool in_place : {false, true}) {
    float x[] = {1, 2, /**/ 3, 4}, out[4] = {};
    float* y = in_place ? x : out;
    const DeepstackAdd::Args a{.x = ConstTensor(x, DType::kF32, {2, 2}),
                               .visual_row = indices(visual_row),
                               .features = ConstTensor(features, DType::kF32, {1, 2}),
                               .y = Tensor(y, DType::kF32, {2, 2})};
    ASSERT_TRUE(run_one<DeepstackAdd>(a).ok());
    EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{1, 2, 13, 24}));
  }
}

TEST(DeepstackAdd, RefusesRowsOutOfRange) {
  float x[] = {1, 2};
  const std::vector<int32_t> visual_row = {1};
  const Status s = run_one<DeepstackAdd>({.x = ConstTensor(x, DType::kF32, {1, 2}),
                                          .visual_row = indices(visual_row),
                                          .features = ConstTensor(x, DType::kF32, {1, 2}),
                                          .y = Tensor(x, DType::kF32, {1, 2})});
  EXPECT_EQ(s.message(), "deepstack_add: visual_row[0] = 1 of 1 rows");
}

TEST(Convert, RoundsToNearestEven) {
  // Halfway between two bf16 (8 bits of significand): to the even one; above halfway: up.
  const float x[] = {1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-8f + 0x1p-20f, -3};
  uint16_t half[4];
  ASSERT_TRUE(run_one<Convert>({.x = ConstTensor(x, DType::kF32, {1, 4}),
                                .y = Tensor(half, DType::kBF16, {1, 4})})
                  .ok());
  float back[4];
  ASSERT_TRUE(run_one<Convert>({.x = ConstTensor(half, DType::kBF16, {1, 4}),
                                .y = Tensor(back, DType::kF32, {1, 4})})
                  .ok());
  EXPECT_EQ(std::vector<float>(back, back + 4),
            (std::vector<float>{1, 1 + 0x1p-6f, 1 + 0x1p-7f, -3}));
}

TEST(Convert, WidensEveryF16Exactly) {
  std::vector<uint16_t> half(0x7c00);  // zero and every positive finite number
  for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(half.size());
  const auto n = static_cast<int64_t>(half.size());
  ASSERT_TRUE(run_one<Convert>({.x = ConstTensor(half.data(), DType::kF16, {1, n}),
                                .y = Tensor(wide.data(), DType::kF32, {1, n})})
                  .ok());
  for (int i = 0; i < n; ++i) {
    const int exponent = i >> 10, fraction = i & 0x3ff;
    const double want =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(static_cast<double>(wide[static_cast<size_t>(i)]), want) << i;
  }
}

TEST(Embedding, CopiesRowsOf16Bits) {
  const std::vector<int32_t> ids = {1, 99}, visual_row = {-1, 0};
  const uint16_t table[] = {1, 2, 3, 4}, visual[] = {5, 0x7bff};
  uint16_t y[4];
  Embedding::Args a{.ids = indices(ids),
                    .visual_row = indices(visual_row),
                    .table = ConstTensor(table, DType::kF16, {2, 2}),
                    .visual = ConstTensor(visual, DType::kF16, {1, 2}),
                    .y = Tensor(y, DType::kF16, {2, 2})};
  ASSERT_TRUE(run_one<Embedding>(a).ok());
  EXPECT_EQ(std::vector<uint16_t>(y, y + 4), (std::vector<uint16_t>{3, 4, 5, 0x7bff}));
  a.table = ConstTensor(table, DType::kBF16, {2, 2});
  EXPECT_EQ(run_one<Embedding>(a).message(), "embedding: table must be f16, got bf16[2, 2]");
}

using test::OpTester;

struct Case {
  int64_t rows, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 8}, {1, 1}, {3, 31}, {5, 16}, {300, 70}, {20, 2048}, {3, 4096}};

/// Row numbers in a dense operand of the tester.
template <class Op, class Row>
Tensor rows_of(OpTester<Op>& t, int64_t count, Row row) {
  const Tensor out = t.random_dense({count}, DType::kI32);
  for (int64_t i = 0; i < count; ++i) out.as<int32_t>()[i] = static_cast<int32_t>(row(i));
  return out;
}
/// Every third token is text; the others have rows 0, 2, 4, ... of features, in descending order.
template <class Op>
Tensor visual_rows(OpTester<Op>& t, int64_t tokens) {
  return rows_of(t, tokens, [&](int64_t i) { return i % 3 == 0 ? -1 : 2 * (tokens - 1 - i); });
}
/// Rows that no index names hold NaN, which no result may show.
void poison_odd_rows(const Tensor& features) {
  for (int64_t r = 1; r < features.dim(0); r += 2) {
    const Tensor row = features.slice(0, r, 1);
    for (int64_t i = 0; i < features.dim(1); ++i) store_f32(row, i, std::nanf(""));
  }
}

class EmbeddingImpl : public test::ImplTest<std::tuple<const Impl<Embedding>*, Case>> {};
TEST_P(EmbeddingImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (DType table_dtype : test::kActivations) {
    if (c.dtype != DType::kF32 && table_dtype != c.dtype) continue;
    for (bool has_visual : {true, false}) {
      OpTester<Embedding> t(*impl, true);
      const Tensor ids = rows_of(t, c.rows, [](int64_t i) { return i * 7 % 40; });
      const Tensor rows =
          has_visual ? visual_rows(t, c.rows) : rows_of(t, c.rows, [](int64_t) { return -1; });
      const Tensor table = t.random_dense({40, c.dim}, table_dtype);
      const Tensor visual = t.random({2 * c.rows, c.dim}, c.dtype);
      poison_odd_rows(visual);
      const Embedding::Args args{.ids = ids,
                                 .visual_row = rows,
                                 .table = table,
                                 .visual = has_visual ? visual : Tensor(),
                                 .y = t.output({c.rows, c.dim}, c.dtype)};
      EXPECT_TRUE(test::runs_everywhere<Embedding>(args));
      EXPECT_TRUE(t.matches_reference(args));
      EXPECT_TRUE(t.same_bits_everywhere(args));
    }
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EmbeddingImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, EmbeddingImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Embedding>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class GatherRowsImpl : public test::ImplTest<std::tuple<const Impl<GatherRows>*, Case>> {};
TEST_P(GatherRowsImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<GatherRows> t(*impl, strided);
    const Tensor rows = rows_of(t, c.rows, [](int64_t i) { return i * 14 % 40; });
    const Tensor x = t.random({40, c.dim}, c.dtype);
    poison_odd_rows(x);
    const GatherRows::Args args{.x = x, .rows = rows, .y = t.output({c.rows, c.dim}, c.dtype)};
    EXPECT_TRUE(test::runs_everywhere<GatherRows>(args));
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GatherRowsImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, GatherRowsImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<GatherRows>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class DeepstackAddImpl : public test::ImplTest<std::tuple<const Impl<DeepstackAdd>*, Case>> {};
TEST_P(DeepstackAddImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool in_place : {false, true}) {
    OpTester<DeepstackAdd> t(*impl, true);
    const Tensor rows = visual_rows(t, c.rows);
    const Tensor features = t.random({2 * c.rows, c.dim}, c.dtype);
    poison_odd_rows(features);
    const Tensor x =
        in_place ? t.in_place({c.rows, c.dim}, c.dtype) : t.random({c.rows, c.dim}, c.dtype);
    const Tensor y = in_place ? x : t.output({c.rows, c.dim}, c.dtype);
    const DeepstackAdd::Args args{.x = x, .visual_row = rows, .features = features, .y = y};
    EXPECT_TRUE(test::runs_everywhere<DeepstackAdd>(args));
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(
        t, args, c.rows, [](DeepstackAdd::Args some, int64_t begin, int64_t count) {
          some.x = some.x.slice(0, begin, count);
          some.visual_row = some.visual_row.slice(0, begin, count);
          some.y = some.y.slice(0, begin, count);
          return some;
        }));
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeepstackAddImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, DeepstackAddImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<DeepstackAdd>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class ConvertImpl : public test::ImplTest<std::tuple<const Impl<Convert>*, Case>> {};
TEST_P(ConvertImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (DType to : test::kActivations) {
    for (double deviation : {1.0, 1e-7, 1e5}) {  // subnormal and infinite in f16, too
      OpTester<Convert> t(*impl, deviation == 1.0);
      const Tensor x = t.random({c.rows, c.dim}, c.dtype, deviation);
      const Convert::Args args{.x = x, .y = t.output({c.rows, c.dim}, to)};
      EXPECT_TRUE(test::runs_everywhere<Convert>(args));
      EXPECT_TRUE(t.matches_reference(args));
      EXPECT_TRUE(t.same_bits_everywhere(args));
    }
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ConvertImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, ConvertImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Convert>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class EmbeddingAnyShape : public test::ImplTest<const Impl<Embedding>*> {};
TEST_P(EmbeddingAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<Embedding>(
      *GetParam(), [](auto& t, const test::RowShape& s, DType dtype) {
        return Embedding::Args{.ids = rows_of(t, s.rows, [](int64_t i) { return i * 7 % 40; }),
                               .visual_row = visual_rows(t, s.rows),
                               .table = t.random_dense({40, s.dim}, dtype),
                               .visual = t.random({2 * s.rows, s.dim}, dtype),
                               .y = t.output({s.rows, s.dim}, dtype)};
      }));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EmbeddingAnyShape);
INSTANTIATE_TEST_SUITE_P(All, EmbeddingAnyShape, testing::ValuesIn(test::candidates<Embedding>()),
                         test::ImplName());

class GatherRowsAnyShape : public test::ImplTest<const Impl<GatherRows>*> {};
TEST_P(GatherRowsAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<GatherRows>(
      *GetParam(), [](auto& t, const test::RowShape& s, DType dtype) {
        return GatherRows::Args{
            .x = t.random({40, s.dim}, dtype),
            .rows = rows_of(t, s.rows, [&](int64_t i) { return (i * 7 + s.choice) % 40; }),
            .y = t.output({s.rows, s.dim}, dtype)};
      }));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GatherRowsAnyShape);
INSTANTIATE_TEST_SUITE_P(All, GatherRowsAnyShape, testing::ValuesIn(test::candidates<GatherRows>()),
                         test::ImplName());

class DeepstackAddAnyShape : public test::ImplTest<const Impl<DeepstackAdd>*> {};
TEST_P(DeepstackAddAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<DeepstackAdd>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return DeepstackAdd::Args{.x = t.random({s.rows, s.dim}, dtype),
                                  .visual_row = visual_rows(t, s.rows),
                                  .features = t.random({2 * s.rows, s.dim}, dtype),
                                  .y = t.output({s.rows, s.dim}, dtype)};
      },
      {.rows = &DeepstackAdd::Args::x}));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeepstackAddAnyShape);
INSTANTIATE_TEST_SUITE_P(All, DeepstackAddAnyShape,
                         testing::ValuesIn(test::candidates<DeepstackAdd>()), test::ImplName());

class ConvertAnyShape : public test::ImplTest<const Impl<Convert>*> {};
TEST_P(ConvertAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<Convert>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return Convert::Args{.x = t.random({s.rows, s.dim}, dtype),
                             .y = t.output({s.rows, s.dim}, test::kActivations[s.choice % 3])};
      },
      {.rows = &Convert::Args::x}));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ConvertAnyShape);
INSTANTIATE_TEST_SUITE_P(All, ConvertAnyShape, testing::ValuesIn(test::candidates<Convert>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
