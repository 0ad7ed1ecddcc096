#include "kernels/rmsnorm/rmsnorm.h"

#include "tests/support/op_tester.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(RmsNormCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  EXPECT_TRUE(RmsNorm::check({.x = f32({2, 3}), .weight = f32({3}), .y = f32({2, 3})}).ok());
  EXPECT_TRUE(RmsNorm::check({.x = f32({2, 3, 4}), .weight = f32({4}), .y = f32({2, 3, 4})}).ok());
  EXPECT_EQ(RmsNorm::check({.x = f32({2, 3}), .weight = f32({4}), .y = f32({2, 3})}).message(),
            "rmsnorm: weight must be [3], got f32[4]");
  EXPECT_EQ(RmsNorm::check({.x = f32({3}), .weight = f32({3}), .y = f32({3})}).message(),
            "rmsnorm: x must have 2 or 3 axes, got f32[3]");
  EXPECT_EQ(
      RmsNorm::check({.x = f32({2, 3}), .weight = f32({3}), .y = f32({2, 3}), .eps = 0}).message(),
      "rmsnorm: eps must be above 0");
  EXPECT_EQ(RmsNorm::check({.x = f32({2, 0}), .weight = f32({0}), .y = f32({2, 0})}).message(),
            "rmsnorm: dim must be at least 1, got f32[2, 0]");
}

TEST(RmsNormReference, IsWhatTheFormulaSays) {
  const float x[] = {3, 4, /**/ 0, 0}, weight[] = {1, 10};  // mean square 12.5
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const RmsNorm::Args args{.x = ConstTensor(x, DType::kF32, {2, 2}),
                           .weight = ConstTensor(weight, DType::kF32, {2}),
                           .y = Tensor(y, DType::kF32, {2, 2}),
                           .eps = 1e-9f};
  ASSERT_TRUE(test::implementation<RmsNorm>("reference").run(args, ctx).ok());
  EXPECT_NEAR(y[0], 3 / std::sqrt(12.5), 1e-6);
  EXPECT_NEAR(y[1], 40 / std::sqrt(12.5), 1e-5);
  EXPECT_EQ(y[2], 0);
  EXPECT_EQ(y[3], 0);
}

struct Case {
  int64_t rows, heads, dim;  // heads 0: two axes
  DType weight;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(heads) + "x" + std::to_string(dim) +
           std::string(dtype_name(weight));
  }
  std::vector<int64_t> dims() const {
    return heads ? std::vector<int64_t>{rows, heads, dim} : std::vector<int64_t>{rows, dim};
  }
};
constexpr Case kCases[] = {
    {0, 0, 8, DType::kF32},      {1, 0, 1, DType::kF32},      {3, 0, 31, DType::kBF16},
    {5, 0, 32, DType::kF16},     {7, 0, 33, DType::kF32},     {9, 16, 128, DType::kBF16},
    {20, 0, 2048, DType::kBF16}, {300, 0, 256, DType::kBF16}, {4, 3, 5, DType::kF32}};

using Param = std::tuple<const Impl<RmsNorm>*, Case>;
class RmsNormImpl : public testing::TestWithParam<Param> {};

TEST_P(RmsNormImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<RmsNorm> t(*impl, strided);
    const Tensor x = t.random(c.dims()), weight = t.random_dense({c.dim}, c.weight);
    const RmsNorm::Args args{.x = x, .weight = weight, .y = t.output(c.dims()), .eps = 1e-6f};
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
  }
}

TEST_P(RmsNormImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<RmsNorm> t(*impl, true);
  const Tensor weight = t.random_dense({c.dim}, c.weight), y = t.in_place(c.dims());
  EXPECT_TRUE(t.matches_reference({.x = y, .weight = weight, .y = y, .eps = 1e-5f}));
}

TEST_P(RmsNormImpl, FourTimesTheInputGivesTheSame) {
  const auto& [impl, c] = GetParam();
  OpTester<RmsNorm> t(*impl);
  const Tensor x = t.random(c.dims()), weight = t.random_dense({c.dim}, c.weight);
  const RmsNorm::Args args{.x = x, .weight = weight, .y = t.output(c.dims()), .eps = 1e-30f};
  const std::vector<std::byte> once = t.run(args);
  for (int64_t i = 0; i < x.numel(); ++i)
    x.as<float>()[i] *= 4;  // exact, and eps is nothing beside it
  EXPECT_EQ(t.run(args), once);
}
INSTANTIATE_TEST_SUITE_P(All, RmsNormImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<RmsNorm>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

}  // namespace
}  // namespace vlr::ops
