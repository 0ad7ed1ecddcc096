// The ops of positions: rope_table and vision_pos_embed.

#include "kernels/rope_table/rope_table.h"
#include "kernels/vision_pos_embed/vision_pos_embed.h"
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

TEST(RopeTable, EachPairTurnsByItsAxis) {
  const int32_t positions[] = {1, 7000, /*rows*/ 2, 3, /*columns*/ 5, 0};  // [3, 2]
  const int32_t axis[] = {0, 2, 1, 0};
  const float inv_freq[] = {1, 0.5f, 0.25f, 0.001f};
  float table[16];
  const RopeTable::Args a{.positions = ConstTensor(positions, DType::kI32, {3, 2}),
                          .axis = ConstTensor(axis, DType::kI32, {4}),
                          .inv_freq = ConstTensor(inv_freq, DType::kF32, {4}),
                          .table = Tensor(table, DType::kF32, {2, 2, 4})};
  ASSERT_TRUE(run_one<RopeTable>(a).ok());
  const float angles[2][4] = {{1, 2.5f, 0.5f, 1 * 0.001f}, {7000, 0, 0.75f, 7000 * 0.001f}};
  for (int t = 0; t < 2; ++t) {
    for (int j = 0; j < 4; ++j) {
      const auto angle = static_cast<double>(angles[t][j]);
      EXPECT_NEAR(table[t * 8 + j], std::cos(angle), 1e-7) << t << ", " << j;
      EXPECT_NEAR(table[t * 8 + 4 + j], std::sin(angle), 1e-7) << t << ", " << j;
    }
  }
}

TEST(RopeTable, RefusesShapesThatDoNotFit) {
  const int32_t positions[6] = {}, axis[4] = {};
  const float inv_freq[4] = {};
  float table[16];
  const auto message = [&](int64_t pairs) {
    return RopeTable::check({.positions = ConstTensor(positions, DType::kI32, {3, 2}),
                             .axis = ConstTensor(axis, DType::kI32, {4}),
                             .inv_freq = ConstTensor(inv_freq, DType::kF32, {pairs}),
                             .table = Tensor(table, DType::kF32, {2, 2, 4})})
        .message();
  };
  EXPECT_EQ(message(4), "");
  EXPECT_EQ(message(3), "rope_table: inv_freq must be [4], got f32[3]");
}

TEST(VisionPosEmbed, InterpolatesFourCorners) {
  const float x[] = {100, 200}, table[] = {1, 2, /**/ 3, 4, /**/ 5, 6, /**/ 7, 8},
              weights[] = {0.5f, 0.25f, 0.125f, 0.125f};
  const int32_t corners[] = {3, 0, 1, 2};
  float y[2];
  const VisionPosEmbed::Args a{.x = ConstTensor(x, DType::kF32, {1, 2}),
                               .table = ConstTensor(table, DType::kF32, {4, 2}),
                               .indices = ConstTensor(corners, DType::kI32, {1, 4}),
                               .weights = ConstTensor(weights, DType::kF32, {1, 4}),
                               .y = Tensor(y, DType::kF32, {1, 2})};
  ASSERT_TRUE(run_one<VisionPosEmbed>(a).ok());
  EXPECT_EQ(y[0], 100 + 3.5f + 0.25f + 0.375f + 0.625f);
  EXPECT_EQ(y[1], 200 + 4 + 0.5f + 0.5f + 0.75f);
}

TEST(VisionPosEmbed, RefusesCornersOutOfRange) {
  const float x[2] = {}, table[4] = {}, weights[4] = {};
  const int32_t corners[] = {0, 1, 2, 0};
  float y[2];
  const Status s = run_one<VisionPosEmbed>({.x = ConstTensor(x, DType::kF32, {1, 2}),
                                            .table = ConstTensor(table, DType::kF32, {2, 2}),
                                            .indices = ConstTensor(corners, DType::kI32, {1, 4}),
                                            .weights = ConstTensor(weights, DType::kF32, {1, 4}),
                                            .y = Tensor(y, DType::kF32, {1, 2})});
  EXPECT_EQ(s.message(), "vision_pos_embed: indices[0, 2] = 2 of 2 rows");
}

TEST(VisionPosEmbed, RoundsOnceTo16Bits) {
  // 1 + 4 * (2^-9 + 2^-20): each term alone would be lost in bf16.
  const uint16_t x = f32_to_bf16(1), table[] = {f32_to_bf16(0x1p-9f), f32_to_bf16(0x1p-20f)};
  const float weights[] = {1, 1, 1, 1};
  const int32_t corners[] = {0, 1, 0, 1};
  uint16_t y;
  const VisionPosEmbed::Args a{.x = ConstTensor(&x, DType::kBF16, {1, 1}),
                               .table = ConstTensor(table, DType::kBF16, {2, 1}),
                               .indices = ConstTensor(corners, DType::kI32, {1, 4}),
                               .weights = ConstTensor(weights, DType::kF32, {1, 4}),
                               .y = Tensor(&y, DType::kBF16, {1, 1})};
  ASSERT_TRUE(run_one<VisionPosEmbed>(a).ok());
  EXPECT_EQ(bf16_to_f32(y), 1 + 0x1p-7f);
}

using test::OpTester;

struct TableCase {
  int64_t tokens, pairs;
  std::string name() const { return std::to_string(tokens) + "x" + std::to_string(pairs); }
};
constexpr TableCase kTableCases[] = {{0, 4}, {1, 1}, {3, 36}, {300, 64}, {5, 300}};

class RopeTableImpl : public test::ImplTest<std::tuple<const Impl<RopeTable>*, TableCase>> {};
TEST_P(RopeTableImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (double largest : {10.0, 1e5}) {
    OpTester<RopeTable> t(*impl);
    const Tensor positions = t.random({3, c.tokens}, DType::kI32, largest);
    const Tensor axis = t.random_dense({c.pairs}, DType::kI32);
    const Tensor inv_freq = t.random_dense({c.pairs});
    for (int64_t j = 0; j < c.pairs; ++j) {
      axis.as<int32_t>()[j] = static_cast<int32_t>(j % 3);
      inv_freq.as<float>()[j] =
          std::pow(5e6f, -static_cast<float>(j) / static_cast<float>(c.pairs));
    }
    const RopeTable::Args args{.positions = positions,
                               .axis = axis,
                               .inv_freq = inv_freq,
                               .table = t.output({c.tokens, 2, c.pairs})};
    EXPECT_TRUE(test::runs_everywhere<RopeTable>(args));
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RopeTableImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, RopeTableImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<RopeTable>()),
                                          testing::ValuesIn(kTableCases)),
                         test::CaseName());

struct Case {
  int64_t patches, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(patches) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 8}, {1, 1}, {3, 31}, {5, 144}, {300, 70}, {7, 1152}, {3, 4104}};

class VisionPosEmbedImpl : public test::ImplTest<std::tuple<const Impl<VisionPosEmbed>*, Case>> {};
TEST_P(VisionPosEmbedImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (DType table_dtype : test::kActivations) {
    if (c.dtype != DType::kF32 && table_dtype != c.dtype) continue;
    for (bool in_place : {false, true}) {
      OpTester<VisionPosEmbed> t(*impl, true);
      const Tensor indices = t.random_dense({c.patches, 4}, DType::kI32);
      for (int64_t i = 0; i < indices.numel(); ++i)
        indices.as<int32_t>()[i] = static_cast<int32_t>(i * 5 % 49);
      const Tensor table = t.random_dense({49, c.dim}, table_dtype);
      const Tensor weights = t.random_dense({c.patches, 4});
      const Tensor x = in_place ? t.in_place({c.patches, c.dim}, c.dtype)
                                : t.random({c.patches, c.dim}, c.dtype);
      const Tensor y = in_place ? x : t.output({c.patches, c.dim}, c.dtype);
      const VisionPosEmbed::Args args{
          .x = x, .table = table, .indices = indices, .weights = weights, .y = y};
      EXPECT_TRUE(test::runs_everywhere<VisionPosEmbed>(args));
      EXPECT_TRUE(t.matches_reference(args));
      EXPECT_TRUE(t.same_bits_everywhere(args));
    }
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(VisionPosEmbedImpl);  // a reference alone on the CPU
INSTANTIATE_TEST_SUITE_P(All, VisionPosEmbedImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<VisionPosEmbed>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class VisionPosEmbedAnyShape : public test::ImplTest<const Impl<VisionPosEmbed>*> {};
TEST_P(VisionPosEmbedAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<VisionPosEmbed>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        const Tensor indices = t.random_dense({s.rows, 4}, DType::kI32);
        for (int64_t i = 0; i < indices.numel(); ++i)
          indices.template as<int32_t>()[i] = static_cast<int32_t>((i * 5 + s.choice) % 49);
        return VisionPosEmbed::Args{.x = t.random({s.rows, s.dim}, dtype),
                                    .table = t.random_dense({49, s.dim}, dtype),
                                    .indices = indices,
                                    .weights = t.random_dense({s.rows, 4}),
                                    .y = t.output({s.rows, s.dim}, dtype)};
      },
      {.rows = &VisionPosEmbed::Args::x}));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(VisionPosEmbedAnyShape);
INSTANTIATE_TEST_SUITE_P(All, VisionPosEmbedAnyShape,
                         testing::ValuesIn(test::candidates<VisionPosEmbed>()), test::ImplName());

}  // namespace
}  // namespace vlr::ops
