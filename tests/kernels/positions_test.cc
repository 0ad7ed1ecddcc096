// The ops of positions: rope_table and vision_pos_embed.

#include "kernels/rope_table/rope_table.h"
#include "kernels/vision_pos_embed/vision_pos_embed.h"
#include "tests/support/op_tester.h"

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

}  // namespace
}  // namespace vlr::ops
