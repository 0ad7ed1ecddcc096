#include "kernels/swiglu/swiglu.h"

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(SwiGluCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  EXPECT_TRUE(SwiGlu::check({.gate = f32({2, 3}), .up = f32({2, 3}), .y = f32({2, 3})}).ok());
  EXPECT_EQ(SwiGlu::check({.gate = f32({2, 3}), .up = f32({2, 4}), .y = f32({2, 3})}).message(),
            "swiglu: up must have the shape of f32[2, 3], got f32[2, 4]");
  EXPECT_EQ(SwiGlu::check({.gate = f32({6}), .up = f32({6}), .y = f32({6})}).message(),
            "swiglu: gate must be [?, ?], got f32[6]");
}

TEST(SwiGluReference, IsWhatTheFormulaSays) {
  const float gate[] = {0, std::log(3.0f), -200, 200}, up[] = {5, 2, 3, 2};
  float y[4];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const SwiGlu::Args args{.gate = ConstTensor(gate, DType::kF32, {1, 4}),
                          .up = ConstTensor(up, DType::kF32, {1, 4}),
                          .y = Tensor(y, DType::kF32, {1, 4})};
  ASSERT_TRUE(test::implementation<SwiGlu>("reference").run(args, ctx).ok());
  EXPECT_EQ(y[0], 0);
  EXPECT_NEAR(y[1], std::log(3.0) * 0.75 * 2, 1e-6);  // sigmoid(ln 3) = 3 / 4
  EXPECT_NEAR(y[2], 0, 1e-30);
  EXPECT_EQ(y[3], 400);
}

TEST(SwiGluReference, RoundsSiluBeforeTheProduct) {
  // silu(1) = 187.15 / 256, in bf16 187 / 256; times 129 / 128 that is 188.46 / 256. Without the
  // rounding between it would be 188.61 / 256.
  const uint16_t gate = f32_to_bf16(1), up = f32_to_bf16(129.0f / 128);
  uint16_t y;
  Context ctx;
  const SwiGlu::Args args{.gate = ConstTensor(&gate, DType::kBF16, {1, 1}),
                          .up = ConstTensor(&up, DType::kBF16, {1, 1}),
                          .y = Tensor(&y, DType::kBF16, {1, 1})};
  ASSERT_TRUE(test::implementation<SwiGlu>("reference").run(args, ctx).ok());
  EXPECT_EQ(bf16_to_f32(y), 188.0f / 256);
}

struct Case {
  int64_t rows, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 8},  {1, 1},     {3, 31},   {5, 16},
                           {7, 33}, {20, 6144}, {300, 70}, {2, 12288}};

using Param = std::tuple<const Impl<SwiGlu>*, Case>;
class SwiGluImpl : public test::ImplTest<Param> {};

TEST_P(SwiGluImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (double deviation : {1.0, 40.0}) {  // the second reaches where exp overflows
    OpTester<SwiGlu> t(*impl, true);
    const Tensor gate = t.random({c.rows, c.dim}, c.dtype, deviation),
                 up = t.random({c.rows, c.dim}, c.dtype);
    const SwiGlu::Args args{.gate = gate, .up = up, .y = t.output({c.rows, c.dim}, c.dtype)};
    EXPECT_TRUE(test::runs_everywhere<SwiGlu>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(
        t, args, c.rows, [](SwiGlu::Args some, int64_t begin, int64_t count) {
          some.gate = some.gate.slice(0, begin, count);
          some.up = some.up.slice(0, begin, count);
          some.y = some.y.slice(0, begin, count);
          return some;
        }));
  }
}

TEST_P(SwiGluImpl, ReadsTheHalvesOfOneProductInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<SwiGlu> t(*impl);
  const Tensor both = t.in_place({c.rows, 2 * c.dim}, c.dtype);
  const Tensor gate = both.slice(1, 0, c.dim), up = both.slice(1, c.dim, c.dim);
  const SwiGlu::Args args{.gate = gate, .up = up, .y = gate};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}
INSTANTIATE_TEST_SUITE_P(All, SwiGluImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<SwiGlu>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class SwiGluAnyShape : public test::ImplTest<const Impl<SwiGlu>*> {};
TEST_P(SwiGluAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<SwiGlu>(*GetParam(),
                                                 [](auto& t, const test::RowShape& s, DType dtype) {
                                                   return SwiGlu::Args{
                                                       .gate = t.random({s.rows, s.dim}, dtype),
                                                       .up = t.random({s.rows, s.dim}, dtype),
                                                       .y = t.output({s.rows, s.dim}, dtype)};
                                                 },
                                                 {.rows = &SwiGlu::Args::gate}));
}

INSTANTIATE_TEST_SUITE_P(All, SwiGluAnyShape, testing::ValuesIn(test::candidates<SwiGlu>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
