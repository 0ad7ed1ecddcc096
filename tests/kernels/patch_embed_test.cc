#include "kernels/patch_embed/patch_embed.h"

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(PatchEmbedCheck, RefusesWhatTheContractExcludes) {
  void* const data = nullptr;  // shapes alone are looked at
  const Tensor x(data, DType::kU8, {2, 3}), w(data, DType::kF32, {4, 3}),
      y(data, DType::kF32, {2, 4});
  EXPECT_TRUE(PatchEmbed::check({.x = x, .w = w, .bias = {}, .y = y}).ok());
  EXPECT_EQ(PatchEmbed::check({.x = y, .w = w, .bias = {}, .y = y}).message(),
            "patch_embed: x must be u8, got f32[2, 4]");
  EXPECT_EQ(PatchEmbed::check({.x = x, .w = y, .bias = {}, .y = y}).message(),
            "patch_embed: linear: w must be [?, 3], got f32[2, 4]");
}

TEST(PatchEmbedReference, IsWhatTheFormulaSays) {
  const uint8_t x[] = {0, 255, /**/ 255, 255};
  const float w[] = {1, 2, /**/ 3, -1}, bias[] = {0.5f, 0};
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const PatchEmbed::Args args{.x = ConstTensor(x, DType::kU8, {2, 2}),
                              .w = ConstTensor(w, DType::kF32, {2, 2}),
                              .bias = ConstTensor(bias, DType::kF32, {2}),
                              .y = Tensor(y, DType::kF32, {2, 2})};
  ASSERT_TRUE(test::implementation<PatchEmbed>("reference").run(args, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{1.5f, -4, 3.5f, 2}));
}

TEST(PatchEmbedReference, RoundsThePixelToTheDtypeOfY) {
  const uint8_t x[] = {1};  // (1 - 127.5) / 127.5 = -0.99216, in bf16 -0.9921875
  const uint16_t w[] = {f32_to_f16(1)};
  uint16_t y;
  Context ctx;
  PatchEmbed::Args args{.x = ConstTensor(x, DType::kU8, {1, 1}),
                        .w = ConstTensor(w, DType::kF16, {1, 1}),
                        .bias = {},
                        .y = Tensor(&y, DType::kF16, {1, 1})};
  ASSERT_TRUE(test::implementation<PatchEmbed>("reference").run(args, ctx).ok());
  EXPECT_EQ(y, f32_to_f16(normalize_pixel(1)));
  const uint16_t one = f32_to_bf16(1);
  args.w = ConstTensor(&one, DType::kBF16, {1, 1});
  args.y = Tensor(&y, DType::kBF16, {1, 1});
  ASSERT_TRUE(test::implementation<PatchEmbed>("reference").run(args, ctx).ok());
  EXPECT_EQ(bf16_to_f32(y), -0.9921875f);
}

/// dtype of y, and of w.
struct Case {
  int64_t patches, n, k;
  DType dtype, weight;
  std::string name() const {
    return std::to_string(patches) + "x" + std::to_string(n) + "x" + std::to_string(k) +
           std::string(dtype_name(dtype)) + std::string(dtype_name(weight));
  }
};
constexpr Case kCases[] = {
    {0, 4, 4, DType::kF32, DType::kF32},         {1, 1, 1, DType::kF32, DType::kBF16},
    {5, 33, 75, DType::kF32, DType::kF16},       {20, 144, 1536, DType::kF32, DType::kBF16},
    {520, 9, 30, DType::kF32, DType::kBF16},     {0, 8, 8, DType::kBF16, DType::kBF16},
    {1, 1, 1, DType::kBF16, DType::kBF16},       {5, 33, 75, DType::kF16, DType::kF16},
    {20, 144, 1536, DType::kBF16, DType::kBF16}, {65, 72, 192, DType::kF16, DType::kF16},
    {520, 9, 30, DType::kBF16, DType::kBF16}};

using Param = std::tuple<const Impl<PatchEmbed>*, Case>;
class PatchEmbedImpl : public test::ImplTest<Param> {};

TEST_P(PatchEmbedImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  OpTester<PatchEmbed> t(*impl, true);
  const Tensor x = t.random_dense({c.patches, c.k}, DType::kU8, 60);
  const Tensor w = t.random_dense({c.n, c.k}, c.weight), bias = t.random_dense({c.n}, c.weight);
  const Tensor y = t.output({c.patches, c.n}, c.dtype);
  const PatchEmbed::Args args{.x = x, .w = w, .bias = bias, .y = y};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
  EXPECT_TRUE(t.same_bits_everywhere(args));
  EXPECT_TRUE(test::rows_do_not_depend_on_batch(
      t, args, c.patches, [](PatchEmbed::Args some, int64_t begin, int64_t count) {
        some.x = some.x.slice(0, begin, count);
        some.y = some.y.slice(0, begin, count);
        return some;
      }));
}
INSTANTIATE_TEST_SUITE_P(All, PatchEmbedImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<PatchEmbed>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

class PatchEmbedAnyShape : public test::ImplTest<const Impl<PatchEmbed>*> {};
TEST_P(PatchEmbedAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any(
      *GetParam(), test::any_products(), [](auto& t, const test::ProductShape& s, DType dtype) {
        return PatchEmbed::Args{.x = t.random_dense({s.m, s.k}, DType::kU8, 60),
                                .w = t.random_dense({s.n, s.k}, dtype),
                                .bias = s.choice % 2 ? t.random_dense({s.n}, dtype) : Tensor(),
                                .y = t.output({s.m, s.n}, dtype)};
      }));
}
INSTANTIATE_TEST_SUITE_P(All, PatchEmbedAnyShape, testing::ValuesIn(test::candidates<PatchEmbed>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
