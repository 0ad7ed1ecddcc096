#include "kernels/layernorm/layernorm.h"

#include "tests/kernels/row_ops.h"

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

TEST(LayerNormReference, RoundsOnce) {
  // (x - mean) / deviation = 1 and -1; 1 * weight + bias = 1 + 3 * 2^-9, between two bf16.
  const uint16_t x[] = {f32_to_bf16(3), f32_to_bf16(1)};
  const uint16_t weight[] = {f32_to_bf16(1), f32_to_bf16(1)};
  const uint16_t bias[] = {f32_to_bf16(3 * 0x1p-9f), f32_to_bf16(0)};
  uint16_t y[2];
  Context ctx;
  const LayerNorm::Args args{.x = ConstTensor(x, DType::kBF16, {1, 2}),
                             .weight = ConstTensor(weight, DType::kBF16, {2}),
                             .bias = ConstTensor(bias, DType::kBF16, {2}),
                             .y = Tensor(y, DType::kBF16, {1, 2}),
                             .eps = 1e-12f};
  ASSERT_TRUE(test::implementation<LayerNorm>("reference").run(args, ctx).ok());
  EXPECT_EQ(bf16_to_f32(y[0]), 1 + 0x1p-7f);
  EXPECT_EQ(bf16_to_f32(y[1]), -1);
}

/// dtype of x, and of the weights.
struct Case {
  int64_t rows, dim;
  DType dtype, weight;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype)) +
           std::string(dtype_name(weight));
  }
};
/// f32 with weights of every dtype, and 16 bits. Around a vector (8), a warp of them (256), several
/// per thread, several warps, and what fits a block's registers; more rows than a GPU has in
/// flight.
std::vector<Case> cases() {
  const DType f32 = DType::kF32, bf16 = DType::kBF16, f16 = DType::kF16;
  std::vector<Case> out = {{0, 8, f32, f32},      {1, 1, f32, f32},    {3, 31, f32, bf16},
                           {5, 32, f32, f16},     {7, 33, f32, f32},   {30, 1024, f32, bf16},
                           {300, 144, f32, bf16}, {2, 4096, f32, bf16}};
  for (DType dtype : {bf16, f16}) {
    for (auto [rows, dim] :
         {std::pair{0, 8}, {1, 1},    {3, 31},    {5, 32},    {7, 33},    {30, 1024},  {300, 144},
          {9, 264},        {6, 520},  {5, 776},   {11, 1152}, {3, 1280},  {3, 1288},   {4, 2560},
          {2, 4096},       {2, 4304}, {1, 10240}, {2, 10248}, {30001, 8}, {1301, 2312}})
      out.push_back({rows, dim, dtype, dtype});
  }
  return out;
}

using Param = std::tuple<const Impl<LayerNorm>*, Case>;
class LayerNormImpl : public test::ImplTest<Param> {};

TEST_P(LayerNormImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<LayerNorm> t(*impl, strided);
    const Tensor x = t.random({c.rows, c.dim}, c.dtype);
    const Tensor weight = t.random_dense({c.dim}, c.weight);
    const Tensor bias = t.random_dense({c.dim}, c.weight), y = t.output({c.rows, c.dim}, c.dtype);
    const LayerNorm::Args args{.x = x, .weight = weight, .bias = bias, .y = y, .eps = 1e-6f};
    EXPECT_TRUE(test::runs_everywhere<LayerNorm>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(
        t, args, c.rows, [](LayerNorm::Args some, int64_t begin, int64_t count) {
          some.x = some.x.slice(0, begin, count);
          some.y = some.y.slice(0, begin, count);
          return some;
        }));
  }
}

/// Statistics take the size out again: the tolerance is that of inputs of size 1.
TEST_P(LayerNormImpl, IsAsExactForInputsOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  OpTester<LayerNorm> t(*impl);
  const LayerNorm::Args args{.x = t.random({c.rows, c.dim}, c.dtype, 1e3),
                             .weight = t.random_dense({c.dim}, c.weight),
                             .bias = t.random_dense({c.dim}, c.weight),
                             .y = t.output({c.rows, c.dim}, c.dtype),
                             .eps = 1e-6f};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}

TEST_P(LayerNormImpl, BitsDoNotDependOnAlignment) {
  const auto& [impl, c] = GetParam();
  if (c.dtype == DType::kF32) return;
  OpTester<LayerNorm> t(*impl);
  LayerNorm::Args args{.x = t.random({c.rows, c.dim}, c.dtype),
                       .weight = t.random_dense({c.dim}, c.weight),
                       .bias = t.random_dense({c.dim}, c.weight),
                       .y = t.output({c.rows, c.dim}, c.dtype),
                       .eps = 1e-6f};
  if (!test::takes(*impl, args)) return;
  const std::vector<std::byte> want = t.run(args);
  args.x = test::spread(args.x, t.random({c.rows, c.dim + 3}, c.dtype));
  EXPECT_EQ(t.run(args), want) << t.error();
}

TEST_P(LayerNormImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<LayerNorm> t(*impl, true);
  const Tensor weight = t.random_dense({c.dim}, c.weight), bias = t.random_dense({c.dim}, c.weight);
  const Tensor y = t.in_place({c.rows, c.dim}, c.dtype);
  const LayerNorm::Args args{.x = y, .weight = weight, .bias = bias, .y = y, .eps = 1e-6f};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}
INSTANTIATE_TEST_SUITE_P(All, LayerNormImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<LayerNorm>()),
                                          testing::ValuesIn(cases())),
                         test::CaseName());

class LayerNormAnyShape : public test::ImplTest<const Impl<LayerNorm>*> {};
TEST_P(LayerNormAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<LayerNorm>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return LayerNorm::Args{.x = t.random({s.rows, s.dim}, dtype),
                               .weight = t.random_dense({s.dim}, dtype),
                               .bias = t.random_dense({s.dim}, dtype),
                               .y = t.output({s.rows, s.dim}, dtype),
                               .eps = 1e-6f};
      },
      {.rows = &LayerNorm::Args::x}));
}

INSTANTIATE_TEST_SUITE_P(All, LayerNormAnyShape, testing::ValuesIn(test::candidates<LayerNorm>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
