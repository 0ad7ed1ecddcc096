#include "kernels/qk_norm_rope/qk_norm_rope.h"

#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rope/rope.h"
#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(QkNormRopeCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const QkNormRope::Args good{.x = f32({2, 3, 4}),
                              .q_weight = f32({4}),
                              .k_weight = f32({4}),
                              .table = f32({2, 2, 2}),
                              .y = f32({2, 3, 4}),
                              .num_q_heads = 2};
  EXPECT_TRUE(QkNormRope::check(good).ok());
  QkNormRope::Args a = good;
  a.num_q_heads = 4;
  EXPECT_EQ(QkNormRope::check(a).message(), "qk_norm_rope: num_q_heads must be in [0, 3], got 4");
  a = good;
  a.k_weight = f32({3});
  EXPECT_EQ(QkNormRope::check(a).message(), "qk_norm_rope: k_weight must be [4], got f32[3]");
  a.num_q_heads = 3;
  a.k_weight = {};
  EXPECT_TRUE(QkNormRope::check(a).ok()) << "no keys, no weight for them";
  a.num_q_heads = 0;
  EXPECT_EQ(QkNormRope::check(a).message(), "qk_norm_rope: k_weight must be [4], got f32[]");
  a = good;
  a.table = f32({2, 2, 3});
  EXPECT_EQ(QkNormRope::check(a).message(),
            "qk_norm_rope: rope: table must be [2, 2, 2], got f32[2, 2, 3]");
  a = good;
  a.eps = 0;
  EXPECT_EQ(QkNormRope::check(a).message(), "qk_norm_rope: eps must be above 0");
}

/// tokens x (queries + keys) x dim
struct Case {
  int64_t tokens, queries, keys, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(tokens) + "x" + std::to_string(queries) + "and" + std::to_string(keys) +
           "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
  int64_t heads() const { return queries + keys; }
};
// Every power of two that a warp shares, other sizes; fewer heads than a warp takes, and more than
// a block does.
constexpr Case kCases[] = {{0, 2, 1, 128},  {1, 1, 0, 2},     {3, 2, 1, 6},   {40, 32, 8, 128},
                           {9, 16, 8, 128}, {7, 8, 0, 128},   {7, 0, 8, 128}, {300, 4, 2, 64},
                           {5, 3, 2, 16},   {5, 3, 2, 32},    {5, 3, 2, 256}, {3, 2, 1, 512},
                           {5, 3, 2, 72},   {2, 100, 7, 128}, {2, 3, 2, 1024}};

/// Arguments on rows of `x` and `y`, with a table of random angles.
QkNormRope::Args arguments(OpTester<QkNormRope>& t, const Case& c, const Tensor& x,
                           const Tensor& y) {
  const Tensor table = t.random_dense({c.tokens, 2, c.dim / 2});
  for (int64_t token = 0; token < c.tokens; ++token) {
    float* row = table.row<float>(token);
    for (int64_t d = 0; d < c.dim / 2; ++d) {
      const float angle = 100 * row[d];
      row[d] = std::cos(angle);
      row[c.dim / 2 + d] = std::sin(angle);
    }
  }
  return {.x = x,
          .q_weight = c.queries ? t.random_dense({c.dim}, c.dtype) : Tensor(),
          .k_weight = c.keys ? t.random_dense({c.dim}, c.dtype) : Tensor(),
          .table = table,
          .y = y,
          .num_q_heads = c.queries,
          .eps = 1e-6f};
}

QkNormRope::Args slice(QkNormRope::Args some, int64_t begin, int64_t count) {
  some.x = some.x.slice(0, begin, count);
  some.table = some.table.slice(0, begin, count);
  some.y = some.y.slice(0, begin, count);
  return some;
}

TEST(QkNormRopeReference, IsTheTwoPartsInF32) {
  const Case c{5, 3, 2, 12};
  OpTester<QkNormRope> t(test::implementation<QkNormRope>("reference"), true);
  const QkNormRope::Args a = arguments(t, c, t.random({c.tokens, c.heads(), c.dim}),
                                       t.output({c.tokens, c.heads(), c.dim}));
  const std::vector<std::byte> fused = t.run(a);
  ASSERT_EQ(t.error(), "");
  t.reset_outputs();
  Context ctx;
  const auto norm = [&](int64_t begin, int64_t count, const ConstTensor& weight) {
    return test::implementation<RmsNorm>("reference")
        .run({.x = a.x.slice(1, begin, count),
              .weight = weight,
              .y = a.y.slice(1, begin, count),
              .eps = a.eps},
             ctx);
  };
  ASSERT_TRUE(norm(0, c.queries, a.q_weight).ok());
  ASSERT_TRUE(norm(c.queries, c.keys, a.k_weight).ok());
  ASSERT_TRUE(test::implementation<Rope>("reference")
                  .run({.x = a.y, .table = a.table, .y = a.y}, ctx)
                  .ok());
  const ConstTensor want(fused.data(), DType::kF32, {c.tokens, c.heads(), c.dim});
  for (int64_t token = 0; token < c.tokens; ++token) {
    for (int64_t i = 0; i < c.heads() * c.dim; ++i) {
      const int64_t head = i / c.dim, d = i % c.dim;
      ASSERT_EQ(want.row<float>(token)[i], a.y.row<float>(token)[head * a.y.stride(1) + d]);
    }
  }
}

using Param = std::tuple<const Impl<QkNormRope>*, Case>;
class QkNormRopeImpl : public test::ImplTest<Param> {};

TEST_P(QkNormRopeImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<QkNormRope> t(*impl, strided);
    const Tensor x = t.random({c.tokens, c.heads(), c.dim}, c.dtype);
    const Tensor y = t.output({c.tokens, c.heads(), c.dim}, c.dtype);
    const QkNormRope::Args args = arguments(t, c, x, y);
    EXPECT_TRUE(test::runs_everywhere<QkNormRope>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, c.tokens, slice));
  }
}

/// The first columns of a product, normalised and turned where they stand.
TEST_P(QkNormRopeImpl, WorksInPlaceOnColumnsOfAProduct) {
  const auto& [impl, c] = GetParam();
  OpTester<QkNormRope> t(*impl);
  const Tensor product = t.in_place({c.tokens, (c.heads() + 3) * c.dim}, c.dtype);
  const Tensor y = product.slice(1, 0, c.heads() * c.dim).split_last(c.dim);
  const QkNormRope::Args args = arguments(t, c, y, y);
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QkNormRopeImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, QkNormRopeImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<QkNormRope>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class QkNormRopeAnyShape : public test::ImplTest<const Impl<QkNormRope>*> {};
TEST_P(QkNormRopeAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<QkNormRope>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        const Case c{s.rows, s.choice % 5, 1 + s.choice / 5 % 3, (s.dim + 1) / 2 * 2, dtype};
        const std::vector<int64_t> dims = {c.tokens, c.heads(), c.dim};
        return arguments(t, c, t.random(dims, dtype), t.output(dims, dtype));
      },
      {.rows = &QkNormRope::Args::x}));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QkNormRopeAnyShape);
INSTANTIATE_TEST_SUITE_P(All, QkNormRopeAnyShape, testing::ValuesIn(test::candidates<QkNormRope>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
