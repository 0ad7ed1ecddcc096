#include "kernels/patch_embed/patch_embed.h"

#include "tests/support/op_tester.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(PatchEmbedCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
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

struct Case {
  int64_t patches, n, k;
  DType dtype;
  std::string name() const {
    return std::to_string(patches) + "x" + std::to_string(n) + "x" + std::to_string(k) +
           std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 4, 4, DType::kF32},
                           {1, 1, 1, DType::kBF16},
                           {5, 33, 75, DType::kF16},
                           {20, 144, 1536, DType::kBF16},
                           {520, 9, 30, DType::kBF16}};

using Param = std::tuple<const Impl<PatchEmbed>*, Case>;
class PatchEmbedImpl : public testing::TestWithParam<Param> {};

TEST_P(PatchEmbedImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  OpTester<PatchEmbed> t(*impl, true);
  const Tensor x = t.random_dense({c.patches, c.k}, DType::kU8, 60);
  const Tensor w = t.random_dense({c.n, c.k}, c.dtype), bias = t.random_dense({c.n}, c.dtype);
  const PatchEmbed::Args args{.x = x, .w = w, .bias = bias, .y = t.output({c.patches, c.n})};
  EXPECT_TRUE(t.matches_reference(args));
  EXPECT_TRUE(t.same_bits_everywhere(args));
}
INSTANTIATE_TEST_SUITE_P(All, PatchEmbedImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<PatchEmbed>()),
                                          testing::ValuesIn(kCases)),
                         test::CaseName());

}  // namespace
}  // namespace vlr::ops
