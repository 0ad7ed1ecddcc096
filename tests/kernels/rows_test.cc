// The ops that move rows about: embedding, gather_rows, deepstack_add, convert. They have a
// reference only, so what is tested is the contract: by hand, and what is refused.

#include "kernels/convert/convert.h"
#include "kernels/deepstack_add/deepstack_add.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gather_rows/gather_rows.h"
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

ConstTensor indices(const std::vector<int32_t>& v) {
  return {v.data(), DType::kI32, {static_cast<int64_t>(v.size())}};
}

TEST(Embedding, PutsVisualRowsInTheirPlaces) {
  const std::vector<int32_t> ids = {2, 99, 0}, visual_row = {-1, 1, -1};  // 99 is not read
  const std::vector<uint16_t> table = {f32_to_bf16(1), f32_to_bf16(2), f32_to_bf16(3),
                                       f32_to_bf16(4), f32_to_bf16(5), f32_to_bf16(6)};
  const float visual[] = {10, 11, 12, 13};
  float y[6];
  const Embedding::Args a{.ids = indices(ids),
                          .visual_row = indices(visual_row),
                          .table = ConstTensor(table.data(), DType::kBF16, {3, 2}),
                          .visual = ConstTensor(visual, DType::kF32, {2, 2}),
                          .y = Tensor(y, DType::kF32, {3, 2})};
  ASSERT_TRUE(run_one<Embedding>(a).ok());
  EXPECT_EQ(std::vector<float>(y, y + 6), (std::vector<float>{5, 6, 12, 13, 1, 2}));
}

TEST(Embedding, RefusesIndicesOutOfRange) {
  const float table[] = {1, 2, 3, 4};
  float y[2];
  const auto status = [&](int32_t id, int32_t visual) {
    const std::vector<int32_t> ids = {id}, rows = {visual};
    return run_one<Embedding>({.ids = indices(ids),
                               .visual_row = indices(rows),
                               .table = ConstTensor(table, DType::kF32, {2, 2}),
                               .visual = {},
                               .y = Tensor(y, DType::kF32, {1, 2})});
  };
  EXPECT_TRUE(status(1, -1).ok());
  EXPECT_EQ(status(2, -1).message(), "embedding: ids[0] = 2 of 2 rows");
  EXPECT_EQ(status(-1, -1).message(), "embedding: ids[0] = -1 of 2 rows");
  EXPECT_EQ(status(0, 0).message(), "embedding: visual_row[0] = 0 of 0 rows");
}

TEST(GatherRows, PicksRows) {
  const float x[] = {1, 2, /**/ 3, 4, /**/ 5, 6};
  float y[6];
  const std::vector<int32_t> rows = {2, 0, 2};
  const GatherRows::Args a{.x = ConstTensor(x, DType::kF32, {3, 2}),
                           .rows = indices(rows),
                           .y = Tensor(y, DType::kF32, {3, 2})};
  ASSERT_TRUE(run_one<GatherRows>(a).ok());
  EXPECT_EQ(std::vector<float>(y, y + 6), (std::vector<float>{5, 6, 1, 2, 5, 6}));
}

TEST(GatherRows, RefusesRowsOutOfRange) {
  const float x[] = {1, 2};
  float y[2];
  for (int32_t row : {-1, 1}) {
    const std::vector<int32_t> rows = {row};
    const Status s = run_one<GatherRows>({.x = ConstTensor(x, DType::kF32, {1, 2}),
                                          .rows = indices(rows),
                                          .y = Tensor(y, DType::kF32, {1, 2})});
    EXPECT_EQ(s.message(), "gather_rows: rows[0] = " + std::to_string(row) + " of 1");
  }
}

TEST(DeepstackAdd, AddsToVisualRowsOnly) {
  const float features[] = {10, 20};
  const std::vector<int32_t> visual_row = {-1, 0};
  for (bool in_place : {false, true}) {
    float x[] = {1, 2, /**/ 3, 4}, out[4] = {};
    float* y = in_place ? x : out;
    const DeepstackAdd::Args a{.x = ConstTensor(x, DType::kF32, {2, 2}),
                               .visual_row = indices(visual_row),
                               .features = ConstTensor(features, DType::kF32, {1, 2}),
                               .y = Tensor(y, DType::kF32, {2, 2})};
    ASSERT_TRUE(run_one<DeepstackAdd>(a).ok());
    EXPECT_EQ(std::vector<float>(y, y + 4), (std::vector<float>{1, 2, 13, 24}));
  }
}

TEST(DeepstackAdd, RefusesRowsOutOfRange) {
  float x[] = {1, 2};
  const std::vector<int32_t> visual_row = {1};
  const Status s = run_one<DeepstackAdd>({.x = ConstTensor(x, DType::kF32, {1, 2}),
                                          .visual_row = indices(visual_row),
                                          .features = ConstTensor(x, DType::kF32, {1, 2}),
                                          .y = Tensor(x, DType::kF32, {1, 2})});
  EXPECT_EQ(s.message(), "deepstack_add: visual_row[0] = 1 of 1 rows");
}

TEST(Convert, RoundsToNearestEven) {
  // Halfway between two bf16 (8 bits of significand): to the even one; above halfway: up.
  const float x[] = {1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-8f + 0x1p-20f, -3};
  uint16_t half[4];
  ASSERT_TRUE(run_one<Convert>({.x = ConstTensor(x, DType::kF32, {1, 4}),
                                .y = Tensor(half, DType::kBF16, {1, 4})})
                  .ok());
  float back[4];
  ASSERT_TRUE(run_one<Convert>({.x = ConstTensor(half, DType::kBF16, {1, 4}),
                                .y = Tensor(back, DType::kF32, {1, 4})})
                  .ok());
  EXPECT_EQ(std::vector<float>(back, back + 4),
            (std::vector<float>{1, 1 + 0x1p-6f, 1 + 0x1p-7f, -3}));
}

TEST(Convert, WidensEveryF16Exactly) {
  std::vector<uint16_t> half(0x7c00);  // zero and every positive finite number
  for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(half.size());
  const auto n = static_cast<int64_t>(half.size());
  ASSERT_TRUE(run_one<Convert>({.x = ConstTensor(half.data(), DType::kF16, {1, n}),
                                .y = Tensor(wide.data(), DType::kF32, {1, n})})
                  .ok());
  for (int i = 0; i < n; ++i) {
    const int exponent = i >> 10, fraction = i & 0x3ff;
    const double want =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(static_cast<double>(wide[static_cast<size_t>(i)]), want) << i;
  }
}

}  // namespace
}  // namespace vlr::ops
