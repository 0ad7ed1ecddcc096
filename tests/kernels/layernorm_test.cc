#include "kernels/layernorm/layernorm.h"

#include "tests/support/op_tester.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(LayerNormCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const LayerNorm::Args good{
      .x = f32({2, 3}), .weight = f32({3}), .bias = f32({3}), .y = f32({2, 3})};
  EXPECT_TRUE(LayerNorm::check(good).ok());
  LayerNorm::Args a = good;
  a.weight = f32({4});
  EXPECT_EQ(LayerNorm::check(a).message(), "layernorm: weight must be [3], got f32[4]");
  a = good;
  a.bias = Tensor(data, DType::kBF16, {3});
  EXPECT_EQ(LayerNorm::check(a).message(), "layernorm: bias must be f32, got bf16[3]");
  a = good;
  a.eps = -1;
  EXPECT_EQ(LayerNorm::check(a).message(), "layernorm: eps must be above 0");
}

TEST(LayerNormReference, IsWhatTheFormulaSays) {
  const float x[] = {1, 3, /**/ 5, 5}, weight[] = {2, 10},
              bias[] = {1, 7};  // means 2 and 5, deviations 1 and 0
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const LayerNorm::Args args{.x = ConstTensor(x, DType::kF32, {2, 2}),
                             .weight = ConstTensor(weight, DType::kF32, {2}),
                             .bias = ConstTensor(bias, DType::kF32, {2}),
                             .y = Tensor(y, DType::kF32, {2, 2}),
                             .eps = 1e-12f};
  ASSERT_TRUE(test::implementation<LayerNorm>("reference").run(args, ctx).ok());
  EXPECT_NEAR(y[0], -1, 1e-6);
  EXPECT_NEAR(y[1], 17, 1e-5);
  EXPECT_EQ(y[2], 1);
  EXPECT_EQ(y[3], 7);
}

struct Case {
  int64_t rows, dim;
  DType dtype;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 8, DType::kF32},      {1, 1, DType::kF32},
                           {3, 31, DType::kBF16},    {5, 32, DType::kF16},
                           {7, 33, DType::kF32},     {30, 1024, DType::kBF16},
                           {300, 144, DType::kBF16}, {2, 4096, DType::kBF16}};

using Param = std::tuple<const Impl<LayerNorm>*, Case>;
class LayerNormImpl : public testing::TestWithParam<Param> {};

TEST_P(LayerNormImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<LayerNorm> t(*impl, strided);
    const Tensor x = t.random({c.rows, c.dim}), weight = t.random_dense({c.dim}, c.dtype);
    const Tensor bias = t.random_dense({c.dim}, c.dtype);
    const LayerNorm::Args args{
        .x = x, .weight = weight, .bias = bias, .y = t.output({c.rows, c.dim}), .eps = 1e-6f};
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
  }
}

TEST_P(LayerNormImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<LayerNorm> t(*impl, true);
  const Tensor weight = t.random_dense({c.dim}, c.dtype), bias = t.random_dense({c.dim}, c.dtype);
  const Tensor y = t.in_place({c.rows, c.dim});
  EXPECT_TRUE(t.matches_reference({.x = y, .weight = weight, .bias = bias, .y = y, .eps = 1e-6f}));
}
INSTANTIATE_TEST_SUITE_P(All, LayerNormImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<LayerNorm>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

}  // namespace
}  // namespace vlr::ops
