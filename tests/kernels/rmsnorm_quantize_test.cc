#include "kernels/rmsnorm_quantize/rmsnorm_quantize.h"

#include "kernels/rmsnorm/rmsnorm.h"
#include "tests/kernels/quantized_rows.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(RmsNormQuantizeCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const RmsNormQuantize::Args good{.x = f32({2, 3}),
                                   .weight = f32({3}),
                                   .q = Tensor(data, DType::kI8, {2, 3}),
                                   .scale = f32({2})};
  const auto message = [](const RmsNormQuantize::Args& a) {
    return RmsNormQuantize::check(a).message();
  };
  EXPECT_EQ(message(good), "");
  RmsNormQuantize::Args a = good;
  a.x = f32({1, 2, 3});
  EXPECT_EQ(message(a), "rmsnorm_quantize: x must be [?, ?], got f32[1, 2, 3]");
  a = good;
  a.weight = f32({4});
  EXPECT_EQ(message(a), "rmsnorm_quantize: rmsnorm: weight must be [3], got f32[4]");
  a = good;
  a.eps = 0;
  EXPECT_EQ(message(a), "rmsnorm_quantize: rmsnorm: eps must be above 0");
  a = good;
  a.q = f32({2, 3});
  EXPECT_EQ(message(a), "rmsnorm_quantize: quantize_rows: q must be i8 | f8_e4m3, got f32[2, 3]");
  a = good;
  a.scale = f32({3});
  EXPECT_EQ(message(a), "rmsnorm_quantize: quantize_rows: scale must be [2], got f32[3]");
}

TEST(RmsNormQuantizeReference, QuantisesTheRoundedNorm) {
  // rmsnorm's own test has why these are 230 / 128 and 0 in bf16.
  const uint16_t x[] = {f32_to_bf16(1.5f), f32_to_bf16(0)};
  const uint16_t weight[] = {f32_to_bf16(163.0f / 128), f32_to_bf16(1)};
  int8_t q[2];
  float scale;
  Context ctx;
  const RmsNormQuantize::Args args{.x = ConstTensor(x, DType::kBF16, {1, 2}),
                                   .weight = ConstTensor(weight, DType::kBF16, {2}),
                                   .q = Tensor(q, DType::kI8, {1, 2}),
                                   .scale = Tensor(&scale, DType::kF32, {1}),
                                   .eps = 1e-12f};
  ASSERT_TRUE(test::implementation<RmsNormQuantize>("reference").run(args, ctx).ok());
  EXPECT_EQ(scale, 230.0f / 128 / 127);
  EXPECT_EQ(q[0], 127);
  EXPECT_EQ(q[1], 0);
}

struct Case {
  int64_t rows, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
// Around a vector (8), a warp of them (256), several warps, and what fits a block's registers.
constexpr Case kCases[] = {{0, 8},    {1, 1},    {3, 31},   {5, 264},  {300, 256}, {9, 1024},
                           {5, 2048}, {3, 2560}, {6, 4096}, {2, 1283}, {1, 10240}, {2, 10248}};

RmsNormQuantize::Args operands(OpTester<RmsNormQuantize>& t, const Case& c, DType codes) {
  return {.x = t.random({c.rows, c.dim}, c.dtype),
          .weight = t.random_dense({c.dim}, c.dtype),
          .q = t.output_dense({c.rows, c.dim}, codes),
          .scale = t.output_dense({c.rows}),
          .eps = 1e-6f};
}

RmsNormQuantize::Args slice(RmsNormQuantize::Args some, int64_t begin, int64_t count) {
  some.x = some.x.slice(0, begin, count);
  some.q = some.q.slice(0, begin, count);
  some.scale = some.scale.slice(0, begin, count);
  return some;
}

/// Of codes and of scales.
std::vector<Tolerance> tolerances(const RmsNormQuantize::Args& a) {
  const Tolerance norm =
      RmsNorm::tolerance({.x = a.x, .weight = a.weight, .y = Tensor(nullptr, a.x.dtype, {1})});
  return {RmsNormQuantize::tolerance(a), test::scale_tolerance(norm, a.q.dtype)};
}

using Param = std::tuple<const Impl<RmsNormQuantize>*, Case>;
class RmsNormQuantizeImpl : public test::ImplTest<Param> {};

TEST_P(RmsNormQuantizeImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    for (DType codes : test::kCodes) {
      OpTester<RmsNormQuantize> t(*impl, strided);
      const RmsNormQuantize::Args args = operands(t, c, codes);
      EXPECT_TRUE(test::runs_everywhere<RmsNormQuantize>(args));
      if (!test::takes(*impl, args)) continue;
      EXPECT_TRUE(t.matches_reference(args, tolerances(args)));
      EXPECT_TRUE(t.same_bits_everywhere(args));
      EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, {args.q, args.scale}, slice));
    }
  }
}

TEST_P(RmsNormQuantizeImpl, GivesZerosForZeros) {
  const auto& [impl, c] = GetParam();
  if (c.rows == 0) return;
  for (DType codes : test::kCodes) {
    OpTester<RmsNormQuantize> t(*impl);
    const RmsNormQuantize::Args args = operands(t, c, codes);
    if (!test::takes(*impl, args)) continue;
    std::memset(const_cast<void*>(args.x.data), 0,
                static_cast<size_t>(c.dim * dtype_bytes(c.dtype)));
    t.run(args);
    ASSERT_EQ(t.error(), "");
    EXPECT_EQ(args.scale.as<float>()[0], 0);
    // A weight below 0 makes a -0, which e4m3 has too.
    for (int64_t k = 0; k < c.dim; ++k) EXPECT_EQ(args.q.as<uint8_t>()[k] & 0x7f, 0) << k;
  }
}

/// With f32 a weight may be narrower.
TEST_P(RmsNormQuantizeImpl, TakesNarrowWeights) {
  const auto& [impl, c] = GetParam();
  if (c.dtype != DType::kF32) return;
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    OpTester<RmsNormQuantize> t(*impl);
    RmsNormQuantize::Args args = operands(t, c, DType::kI8);
    args.weight = t.random_dense({c.dim}, dtype);
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args, tolerances(args)));
  }
}
INSTANTIATE_TEST_SUITE_P(All, RmsNormQuantizeImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<RmsNormQuantize>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class RmsNormQuantizeAnyShape : public test::ImplTest<const Impl<RmsNormQuantize>*> {};
TEST_P(RmsNormQuantizeAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<RmsNormQuantize>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return operands(t, {s.rows, s.dim, dtype}, test::kCodes[s.choice % 2]);
      },
      {.rows = &RmsNormQuantize::Args::x, .tolerances = tolerances}));
}
INSTANTIATE_TEST_SUITE_P(All, RmsNormQuantizeAnyShape,
                         testing::ValuesIn(test::candidates<RmsNormQuantize>()), test::ImplName());

}  // namespace
}  // namespace vlr::ops
