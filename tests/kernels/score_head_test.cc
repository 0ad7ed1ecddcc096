#include "kernels/score_head/score_head.h"

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(ScoreHeadCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const ScoreHead::Args good{
      .x = f32({2, 3}), .norm_weight = f32({3}), .w = f32({2, 3}), .log_odds = f32({2})};
  EXPECT_TRUE(ScoreHead::check(good).ok());
  ScoreHead::Args a = good;
  a.w = f32({3, 3});
  EXPECT_EQ(ScoreHead::check(a).message(), "score_head: w must have 1 or 2 rows, got f32[3, 3]");
  a = good;
  a.log_odds = f32({3});
  EXPECT_EQ(ScoreHead::check(a).message(), "score_head: log_odds must be [2], got f32[3]");
  a = good;
  a.eps = 0;
  EXPECT_EQ(ScoreHead::check(a).message(), "score_head: eps must be above 0");
}

TEST(ScoreHeadReference, IsWhatTheFormulaSays) {
  const float x[] = {3, 4}, norm[] = {1, 2}, w[] = {5, 1, /**/ 4, -1};  // mean square 12.5
  float y;
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  ScoreHead::Args a{.x = ConstTensor(x, DType::kF32, {1, 2}),
                    .norm_weight = ConstTensor(norm, DType::kF32, {2}),
                    .w = ConstTensor(w, DType::kF32, {2, 2}),
                    .log_odds = Tensor(&y, DType::kF32, {1}),
                    .eps = 1e-9f};
  ASSERT_TRUE(test::implementation<ScoreHead>("reference").run(a, ctx).ok());
  EXPECT_NEAR(y, (3 * 1 + 8 * 2) / std::sqrt(12.5), 1e-6);
  a.w = ConstTensor(w, DType::kF32, {1, 2});  // a checkpoint that holds the difference
  ASSERT_TRUE(test::implementation<ScoreHead>("reference").run(a, ctx).ok());
  EXPECT_NEAR(y, (3 * 5 + 8 * 1) / std::sqrt(12.5), 1e-6);
}

/// The head on two rows is the head on their difference, and a row does not depend on the others.
TEST(ScoreHead, DifferenceAndBatchDoNotMatter) {
  OpTester<ScoreHead> t(test::implementation<ScoreHead>("reference"), true);
  const int64_t rows = 5, dim = 300;
  const Tensor x = t.random({rows, dim}), norm = t.random_dense({dim}, DType::kBF16),
               w = t.random_dense({2, dim});
  const Tensor y = t.output({rows});
  const std::vector<std::byte> all = t.run({.x = x, .norm_weight = norm, .w = w, .log_odds = y});
  ASSERT_EQ(t.error(), "");
  for (int64_t r = 0; r < rows; ++r) {
    t.run({.x = x.slice(0, r, 1), .norm_weight = norm, .w = w, .log_odds = y.slice(0, r, 1)});
    EXPECT_EQ(std::memcmp(y.as<float>() + r, all.data() + r * 4, 4), 0) << r;
  }
  std::vector<float> two(static_cast<size_t>(rows));
  std::memcpy(two.data(), all.data(), all.size());
  for (int64_t i = 0; i < dim; ++i) w.as<float>()[i] -= w.as<float>()[dim + i];
  t.run({.x = x, .norm_weight = norm, .w = w.slice(0, 0, 1), .log_odds = y});
  for (int64_t r = 0; r < rows; ++r)
    EXPECT_NEAR(y.as<float>()[r], two[static_cast<size_t>(r)], 1e-5) << r;
}

/// dtype of x, and of the weights; w has 1 or 2 rows.
struct Case {
  int64_t rows, dim, w_rows;
  DType dtype, weight;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + "w" + std::to_string(w_rows) +
           std::string(dtype_name(dtype)) + std::string(dtype_name(weight));
  }
};
constexpr Case kCases[] = {
    {0, 8, 2, DType::kBF16, DType::kBF16},    {1, 1, 1, DType::kF16, DType::kF16},
    {3, 255, 2, DType::kBF16, DType::kBF16},  {9, 257, 1, DType::kF16, DType::kF16},
    {4, 2048, 2, DType::kF16, DType::kF16},   {100, 4096, 1, DType::kBF16, DType::kBF16},
    {2, 4096, 2, DType::kBF16, DType::kBF16}, {5, 300, 2, DType::kF32, DType::kF32},
    {5, 300, 1, DType::kF32, DType::kBF16}};

using Param = std::tuple<const Impl<ScoreHead>*, Case>;
class ScoreHeadImpl : public test::ImplTest<Param> {};

TEST_P(ScoreHeadImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<ScoreHead> t(*impl, strided);
    const Tensor x = t.random({c.rows, c.dim}, c.dtype);
    const Tensor norm = t.random_dense({c.dim}, c.weight);
    const Tensor w = t.random_dense({c.w_rows, c.dim}, c.weight), y = t.output({c.rows});
    const ScoreHead::Args args{.x = x, .norm_weight = norm, .w = w, .log_odds = y};
    EXPECT_TRUE(test::runs_everywhere<ScoreHead>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(
        t, args, c.rows, [](ScoreHead::Args some, int64_t begin, int64_t count) {
          some.x = some.x.slice(0, begin, count);
          some.log_odds = some.log_odds.slice(0, begin, count);
          return some;
        }));
  }
}
/// The norm takes the size of x out again; that of w is the size of the terms.
TEST_P(ScoreHeadImpl, IsAsExactForOperandsOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  for (double size : {1e-3, 1e3}) {
    OpTester<ScoreHead> t(*impl);
    const ScoreHead::Args args{.x = t.random({c.rows, c.dim}, c.dtype, 1e3),
                               .norm_weight = t.random_dense({c.dim}, c.weight),
                               .w = t.random_dense({c.w_rows, c.dim}, c.weight, size),
                               .log_odds = t.output({c.rows})};
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args, {}, size)) << size;
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ScoreHeadImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, ScoreHeadImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<ScoreHead>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

class ScoreHeadAnyShape : public test::ImplTest<const Impl<ScoreHead>*> {};
TEST_P(ScoreHeadAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<ScoreHead>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return ScoreHead::Args{.x = t.random({s.rows, s.dim}, dtype),
                               .norm_weight = t.random_dense({s.dim}, dtype),
                               .w = t.random_dense({1 + s.choice % 2, s.dim}, dtype),
                               .log_odds = t.output({s.rows})};
      },
      {.rows = &ScoreHead::Args::x}));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ScoreHeadAnyShape);
INSTANTIATE_TEST_SUITE_P(All, ScoreHeadAnyShape, testing::ValuesIn(test::candidates<ScoreHead>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
