#include "kernels/swiglu_quantize/swiglu_quantize.h"

#include "kernels/swiglu/swiglu.h"
#include "tests/kernels/quantized_rows.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(SwiGluQuantizeCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const SwiGluQuantize::Args good{.gate = f32({2, 3}),
                                  .up = f32({2, 3}),
                                  .q = Tensor(data, DType::kI8, {2, 3}),
                                  .scale = f32({2})};
  const auto message = [](const SwiGluQuantize::Args& a) {
    return SwiGluQuantize::check(a).message();
  };
  EXPECT_EQ(message(good), "");
  SwiGluQuantize::Args a = good;
  a.gate = f32({6});
  EXPECT_EQ(message(a), "swiglu_quantize: gate must be [?, ?], got f32[6]");
  a = good;
  a.up = f32({2, 4});
  EXPECT_EQ(message(a),
            "swiglu_quantize: swiglu: up must have the shape of f32[2, 3], got f32[2, 4]");
  a = good;
  a.q = f32({2, 3});
  EXPECT_EQ(message(a), "swiglu_quantize: quantize_rows: q must be i8 | f8_e4m3, got f32[2, 3]");
  a = good;
  a.gate = a.up = f32({2, 0});
  a.q = Tensor(data, DType::kI8, {2, 0});
  EXPECT_EQ(message(a), "swiglu_quantize: quantize_rows: K must be at least 1, got f32[2, 0]");
}

TEST(SwiGluQuantizeReference, QuantisesTheRoundedGate) {
  // swiglu's own test has why the first is 188 / 256 in bf16; the second is 0.
  const uint16_t gate[] = {f32_to_bf16(1), f32_to_bf16(0)};
  const uint16_t up[] = {f32_to_bf16(129.0f / 128), f32_to_bf16(1)};
  int8_t q[2];
  float scale;
  Context ctx;
  const SwiGluQuantize::Args args{.gate = ConstTensor(gate, DType::kBF16, {1, 2}),
                                  .up = ConstTensor(up, DType::kBF16, {1, 2}),
                                  .q = Tensor(q, DType::kI8, {1, 2}),
                                  .scale = Tensor(&scale, DType::kF32, {1})};
  ASSERT_TRUE(test::implementation<SwiGluQuantize>("reference").run(args, ctx).ok());
  EXPECT_EQ(scale, 188.0f / 256 / 127);
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
constexpr Case kCases[] = {{0, 8},   {1, 1},     {3, 31},   {5, 16},    {7, 33},
                           {5, 264}, {20, 6144}, {300, 70}, {2, 12288}, {2, 12301}};

SwiGluQuantize::Args slice(SwiGluQuantize::Args some, int64_t begin, int64_t count) {
  some.gate = some.gate.slice(0, begin, count);
  some.up = some.up.slice(0, begin, count);
  some.q = some.q.slice(0, begin, count);
  some.scale = some.scale.slice(0, begin, count);
  return some;
}

/// Of codes and of scales.
std::vector<Tolerance> tolerances(const SwiGluQuantize::Args& a) {
  const Tolerance gate =
      SwiGlu::tolerance({.gate = a.gate, .up = a.up, .y = Tensor(nullptr, a.gate.dtype, {1})});
  return {SwiGluQuantize::tolerance(a), test::scale_tolerance(gate, a.q.dtype)};
}

using Param = std::tuple<const Impl<SwiGluQuantize>*, Case>;
class SwiGluQuantizeImpl : public test::ImplTest<Param> {};

TEST_P(SwiGluQuantizeImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (double deviation : {1.0, 40.0}) {  // the second reaches where exp overflows
    for (DType codes : test::kCodes) {
      OpTester<SwiGluQuantize> t(*impl, deviation == 1.0);
      const Tensor gate = t.random({c.rows, c.dim}, c.dtype, deviation),
                   up = t.random({c.rows, c.dim}, c.dtype);
      const Tensor q = t.output_dense({c.rows, c.dim}, codes), scale = t.output_dense({c.rows});
      const SwiGluQuantize::Args args{.gate = gate, .up = up, .q = q, .scale = scale};
      EXPECT_TRUE(test::runs_everywhere<SwiGluQuantize>(args));
      if (!test::takes(*impl, args)) continue;
      EXPECT_TRUE(t.matches_reference(args, tolerances(args)));
      EXPECT_TRUE(t.same_bits_everywhere(args));
      EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, {q, scale}, slice));
    }
  }
}

/// Gates of zeros in the first row; the halves of one product.
TEST_P(SwiGluQuantizeImpl, GivesZerosForZeros) {
  const auto& [impl, c] = GetParam();
  if (c.rows == 0) return;
  for (DType codes : test::kCodes) {
    OpTester<SwiGluQuantize> t(*impl);
    const Tensor both = t.random({c.rows, 2 * c.dim}, c.dtype);
    const Tensor q = t.output_dense({c.rows, c.dim}, codes), scale = t.output_dense({c.rows});
    const SwiGluQuantize::Args args{
        .gate = both.slice(1, 0, c.dim), .up = both.slice(1, c.dim, c.dim), .q = q, .scale = scale};
    if (!test::takes(*impl, args)) continue;
    std::memset(both.data, 0, static_cast<size_t>(c.dim * dtype_bytes(c.dtype)));
    EXPECT_TRUE(t.matches_reference(args, tolerances(args)));
    t.run(args);
    ASSERT_EQ(t.error(), "");
    EXPECT_EQ(scale.as<float>()[0], 0);
    // An `up` below 0 makes a -0, which e4m3 has too.
    for (int64_t k = 0; k < c.dim; ++k) EXPECT_EQ(q.as<uint8_t>()[k] & 0x7f, 0) << k;
  }
}
INSTANTIATE_TEST_SUITE_P(All, SwiGluQuantizeImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<SwiGluQuantize>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class SwiGluQuantizeAnyShape : public test::ImplTest<const Impl<SwiGluQuantize>*> {};
TEST_P(SwiGluQuantizeAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<SwiGluQuantize>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return SwiGluQuantize::Args{
            .gate = t.random({s.rows, s.dim}, dtype),
            .up = t.random({s.rows, s.dim}, dtype),
            .q = t.output_dense({s.rows, s.dim}, test::kCodes[s.choice % 2]),
            .scale = t.output_dense({s.rows})};
      },
      {.rows = &SwiGluQuantize::Args::gate, .tolerances = tolerances}));
}
INSTANTIATE_TEST_SUITE_P(All, SwiGluQuantizeAnyShape,
                         testing::ValuesIn(test::candidates<SwiGluQuantize>()), test::ImplName());

}  // namespace
}  // namespace vlr::ops
