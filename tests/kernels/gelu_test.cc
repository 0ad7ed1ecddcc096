#include "kernels/gelu/gelu.h"

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(GeluCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  EXPECT_TRUE(Gelu::check({.x = f32({2, 3}), .y = f32({2, 3})}).ok());
  EXPECT_EQ(Gelu::check({.x = f32({2, 3}), .y = f32({2, 4})}).message(),
            "gelu: y must have the shape of f32[2, 3], got f32[2, 4]");
  EXPECT_EQ(Gelu::check({.x = Tensor(data, DType::kBF16, {2, 3}), .y = f32({2, 3})}).message(),
            "gelu: y must be bf16, got f32[2, 3]");
}

TEST(GeluReference, IsWhatTheFormulaSays) {
  // Values of both forms at 1 and -2, from the formula in 30 digits.
  const float x[] = {0, 1, -2, 50, -50};
  const std::pair<GeluKind, std::vector<float>> forms[] = {
      {GeluKind::kTanh, {0, 0.84119199f, -0.04540231f, 50, 0}},
      {GeluKind::kErf, {0, 0.84134475f, -0.04550026f, 50, 0}}};
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  for (const auto& [kind, want] : forms) {
    float y[5];
    const Gelu::Args args{.x = ConstTensor(x, DType::kF32, {1, 5}),
                          .y = Tensor(y, DType::kF32, {1, 5}),
                          .kind = kind};
    ASSERT_TRUE(test::implementation<Gelu>("reference").run(args, ctx).ok());
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(y[i], want[i], 1e-7) << i;
  }
}

struct Case {
  int64_t rows, dim;
  GeluKind kind;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) +
           (kind == GeluKind::kTanh ? "tanh" : "erf") + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 8, GeluKind::kTanh},    {1, 1, GeluKind::kErf},
                           {3, 31, GeluKind::kTanh},   {3, 31, GeluKind::kErf},
                           {5, 16, GeluKind::kTanh},   {40, 4096, GeluKind::kTanh},
                           {40, 4096, GeluKind::kErf}, {300, 70, GeluKind::kErf},
                           {3, 4304, GeluKind::kTanh}, {2, 4608, GeluKind::kErf}};

using Param = std::tuple<const Impl<Gelu>*, Case>;
class GeluImpl : public test::ImplTest<Param> {};

TEST_P(GeluImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (double deviation : {1.0, 10.0}) {
    OpTester<Gelu> t(*impl, true);
    const Tensor x = t.random({c.rows, c.dim}, c.dtype, deviation);
    const Gelu::Args args{.x = x, .y = t.output({c.rows, c.dim}, c.dtype), .kind = c.kind};
    EXPECT_TRUE(test::runs_everywhere<Gelu>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(
        t, args, c.rows, [](Gelu::Args some, int64_t begin, int64_t count) {
          some.x = some.x.slice(0, begin, count);
          some.y = some.y.slice(0, begin, count);
          return some;
        }));
  }
}

TEST_P(GeluImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<Gelu> t(*impl, true);
  const Tensor y = t.in_place({c.rows, c.dim}, c.dtype);
  const Gelu::Args args{.x = y, .y = y, .kind = c.kind};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
}

/// Every finite value of a 16-bit dtype.
TEST_P(GeluImpl, IsRightOnEveryValueOf16Bits) {
  const auto& [impl, c] = GetParam();
  if (c.dtype == DType::kF32 || c.rows != 1) return;
  OpTester<Gelu> t(*impl);
  const Tensor x = t.random({256, 256}, c.dtype);
  for (int i = 0; i < 1 << 16; ++i) {
    x.as<uint16_t>()[i] = static_cast<uint16_t>(i);
    if (!std::isfinite(load_f32(x, i))) x.as<uint16_t>()[i] = 0;
  }
  for (GeluKind kind : {GeluKind::kTanh, GeluKind::kErf}) {
    const Gelu::Args args{.x = x, .y = t.output({256, 256}, c.dtype), .kind = kind};
    if (!test::takes(*impl, args)) return;
    EXPECT_TRUE(t.matches_reference(args));
  }
}
INSTANTIATE_TEST_SUITE_P(All, GeluImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Gelu>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class GeluAnyShape : public test::ImplTest<const Impl<Gelu>*> {};
TEST_P(GeluAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<Gelu>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return Gelu::Args{.x = t.random({s.rows, s.dim}, dtype),
                          .y = t.output({s.rows, s.dim}, dtype),
                          .kind = s.rows % 3 == 0 ? GeluKind::kErf : GeluKind::kTanh};
      },
      {.rows = &Gelu::Args::x}));
}

INSTANTIATE_TEST_SUITE_P(All, GeluAnyShape, testing::ValuesIn(test::candidates<Gelu>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
