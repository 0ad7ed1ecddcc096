#include "kernels/rmsnorm/rmsnorm.h"

#include "tests/kernels/row_ops.h"

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

TEST(RmsNormReference, RoundsBeforeTheProductWithWeight) {
  // Mean square 1.5^2 / 2: 1.5 becomes sqrt(2) = 181.02 / 128, in bf16 181 / 128; times 163 / 128
  // that is 230.49 / 128. Without the rounding between it would be 230.52 / 128.
  const uint16_t x[] = {f32_to_bf16(1.5f), f32_to_bf16(0)};
  const uint16_t weight[] = {f32_to_bf16(163.0f / 128), f32_to_bf16(1)};
  uint16_t y[2];
  Context ctx;
  const RmsNorm::Args args{.x = ConstTensor(x, DType::kBF16, {1, 2}),
                           .weight = ConstTensor(weight, DType::kBF16, {2}),
                           .y = Tensor(y, DType::kBF16, {1, 2}),
                           .eps = 1e-12f};
  ASSERT_TRUE(test::implementation<RmsNorm>("reference").run(args, ctx).ok());
  EXPECT_EQ(bf16_to_f32(y[0]), 230.0f / 128);
}

/// dtype of x, and of the weight.
struct Case {
  int64_t rows, heads, dim;  // heads 0: two axes
  DType dtype, weight;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(heads) + "x" + std::to_string(dim) +
           std::string(dtype_name(dtype)) + std::string(dtype_name(weight));
  }
  std::vector<int64_t> dims() const {
    return heads ? std::vector<int64_t>{rows, heads, dim} : std::vector<int64_t>{rows, dim};
  }
};
struct Shape {
  int64_t rows, heads, dim;
};
/// f32 with weights of every dtype, and 16 bits. Around a vector (8), a warp of them (256), several
/// per thread, several warps, and what fits a block's registers; more rows than a GPU has in
/// flight.
std::vector<Case> cases() {
  const DType f32 = DType::kF32, bf16 = DType::kBF16, f16 = DType::kF16;
  std::vector<Case> out = {
      {0, 0, 8, f32, f32},      {1, 0, 1, f32, f32},      {3, 0, 31, f32, bf16},
      {5, 0, 32, f32, f16},     {7, 0, 33, f32, f32},     {9, 16, 128, f32, bf16},
      {20, 0, 2048, f32, bf16}, {300, 0, 256, f32, bf16}, {4, 3, 5, f32, f32}};
  constexpr Shape kShapes[] = {
      {0, 0, 8},     {1, 0, 1},     {3, 0, 31},     {5, 0, 32},   {7, 0, 33},    {9, 16, 128},
      {20, 0, 2048}, {300, 0, 256}, {4, 3, 5},      {6, 0, 264},  {5, 0, 776},   {9, 0, 1024},
      {3, 0, 1288},  {4, 0, 2560},  {5, 0, 4096},   {2, 0, 5128}, {1, 0, 10240}, {2, 0, 10248},
      {30001, 0, 8}, {10001, 3, 8}, {1301, 0, 2312}};
  for (DType dtype : {bf16, f16}) {
    for (const Shape& s : kShapes) out.push_back({s.rows, s.heads, s.dim, dtype, dtype});
  }
  return out;
}

using Param = std::tuple<const Impl<RmsNorm>*, Case>;
class RmsNormImpl : public test::ImplTest<Param> {};

TEST_P(RmsNormImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<RmsNorm> t(*impl, strided);
    const Tensor x = t.random(c.dims(), c.dtype), weight = t.random_dense({c.dim}, c.weight);
    const Tensor y = t.output(c.dims(), c.dtype);
    const RmsNorm::Args args{.x = x, .weight = weight, .y = y, .eps = 1e-6f};
    EXPECT_TRUE(test::runs_everywhere<RmsNorm>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(
        t, args, c.rows, [](RmsNorm::Args some, int64_t begin, int64_t count) {
          some.x = some.x.slice(0, begin, count);
          some.y = some.y.slice(0, begin, count);
          return some;
        }));
  }
}

/// Statistics take the size out again: the tolerance is that of inputs of size 1.
TEST_P(RmsNormImpl, IsAsExactForInputsOfAnotherSize) {
  const auto& [impl, c] = GetParam();
  OpTester<RmsNorm> t(*impl);
  const RmsNorm::Args args{.x = t.random(c.dims(), c.dtype, 1e3),
                           .weight = t.random_dense({c.dim}, c.weight),
                           .y = t.output(c.dims(), c.dtype),
                           .eps = 1e-6f};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}

TEST_P(RmsNormImpl, BitsDoNotDependOnAlignment) {
  const auto& [impl, c] = GetParam();
  if (c.dtype == DType::kF32 || c.heads > 0) return;
  OpTester<RmsNorm> t(*impl);
  RmsNorm::Args args{.x = t.random(c.dims(), c.dtype),
                     .weight = t.random_dense({c.dim}, c.weight),
                     .y = t.output(c.dims(), c.dtype),
                     .eps = 1e-6f};
  if (!test::takes(*impl, args)) return;
  const std::vector<std::byte> want = t.run(args);
  args.x = test::spread(args.x, t.random({c.rows, c.dim + 3}, c.dtype));
  EXPECT_EQ(t.run(args), want) << t.error();
}

TEST_P(RmsNormImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<RmsNorm> t(*impl, true);
  const Tensor weight = t.random_dense({c.dim}, c.weight), y = t.in_place(c.dims(), c.dtype);
  const RmsNorm::Args args{.x = y, .weight = weight, .y = y, .eps = 1e-5f};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}

TEST_P(RmsNormImpl, FourTimesTheInputGivesTheSame) {
  const auto& [impl, c] = GetParam();
  OpTester<RmsNorm> t(*impl);
  const Tensor x = t.random(c.dims(), c.dtype), weight = t.random_dense({c.dim}, c.weight);
  const Tensor y = t.output(c.dims(), c.dtype);
  const RmsNorm::Args args{.x = x, .weight = weight, .y = y, .eps = 1e-30f};
  if (!test::takes(*impl, args)) return;
  const std::vector<std::byte> once = t.run(args);
  for (int64_t i = 0; i < x.numel(); ++i)
    store_f32(x, i, 4 * load_f32(x, i));  // exact, and eps is nothing beside it
  EXPECT_EQ(t.run(args), once);
}
INSTANTIATE_TEST_SUITE_P(All, RmsNormImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<RmsNorm>()),
                                          testing::ValuesIn(cases())),
                         test::CaseName());

class RmsNormAnyShape : public test::ImplTest<const Impl<RmsNorm>*> {};
TEST_P(RmsNormAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<RmsNorm>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return RmsNorm::Args{.x = t.random({s.rows, s.dim}, dtype),
                             .weight = t.random_dense({s.dim}, dtype),
                             .y = t.output({s.rows, s.dim}, dtype),
                             .eps = 1e-6f};
      },
      {.rows = &RmsNorm::Args::x}));
}

INSTANTIATE_TEST_SUITE_P(All, RmsNormAnyShape, testing::ValuesIn(test::candidates<RmsNorm>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
