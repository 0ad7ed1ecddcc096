#include "kernels/add/add.h"

#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(AddCheck, RefusesWhatTheContractExcludes) {
  float data[64] = {};
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  EXPECT_TRUE(Add::check({.a = f32({2, 3}), .b = f32({2, 3}), .y = f32({2, 3})}).ok());
  EXPECT_EQ(Add::check({.a = f32({2, 3}), .b = f32({2, 4}), .y = f32({2, 3})}).message(),
            "add: b must have the shape of f32[2, 3], got f32[2, 4]");
  EXPECT_EQ(Add::check({.a = f32({2, 3}), .b = f32({2, 3}), .y = f32({3, 3})}).message(),
            "add: y must have the shape of f32[2, 3], got f32[3, 3]");
  EXPECT_EQ(Add::check({.a = Tensor(data, DType::kI32, {2, 3}), .b = f32({2, 3}), .y = f32({2, 3})})
                .message(),
            "add: a must be f32 | bf16 | f16, got i32[2, 3]");
  EXPECT_EQ(Add::check({.a = Tensor(data, DType::kF16, {2, 3}), .b = f32({2, 3}), .y = f32({2, 3})})
                .message(),
            "add: b must be f16, got f32[2, 3]");
}

struct Case {
  int64_t rows, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
// Around a vector (8), a row of a block (4096) and its segments.
constexpr Case kCases[] = {{0, 8},     {1, 1},    {3, 31},   {5, 16},   {7, 1},
                           {20, 2048}, {777, 50}, {3, 4104}, {1, 8192}, {2, 5003}};

using Param = std::tuple<const Impl<Add>*, Case>;
class AddImpl : public test::ImplTest<Param> {};

TEST_P(AddImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<Add> t(*impl, strided);
    const Tensor a = t.random({c.rows, c.dim}, c.dtype), b = t.random({c.rows, c.dim}, c.dtype);
    const Add::Args args{.a = a, .b = b, .y = t.output({c.rows, c.dim}, c.dtype)};
    EXPECT_TRUE(test::runs_everywhere<Add>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, c.rows,
                                                  [](Add::Args some, int64_t begin, int64_t count) {
                                                    some.a = some.a.slice(0, begin, count);
                                                    some.b = some.b.slice(0, begin, count);
                                                    some.y = some.y.slice(0, begin, count);
                                                    return some;
                                                  }));
  }
}

TEST_P(AddImpl, WorksInPlace) {
  const auto& [impl, c] = GetParam();
  OpTester<Add> t(*impl, true);
  const Tensor b = t.random({c.rows, c.dim}, c.dtype), y = t.in_place({c.rows, c.dim}, c.dtype);
  const Add::Args args{.a = y, .b = b, .y = y};
  if (!test::takes(*impl, args)) return;
  EXPECT_TRUE(t.matches_reference(args));
  EXPECT_TRUE(t.matches_reference({.a = b, .b = y, .y = y}));
}
INSTANTIATE_TEST_SUITE_P(All, AddImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<Add>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

TEST(AddReference, IsWhatTheFormulaSays) {
  const float a[] = {1, 2, 3}, b[] = {10, -2, 0.5f};
  float y[3];
  ThreadPool pool(1);
  Context ctx;
  ctx.threads = &pool;
  const Add::Args args{.a = ConstTensor(a, DType::kF32, {1, 3}),
                       .b = ConstTensor(b, DType::kF32, {1, 3}),
                       .y = Tensor(y, DType::kF32, {1, 3})};
  ASSERT_TRUE(test::implementation<Add>("reference").run(args, ctx).ok());
  EXPECT_EQ(std::vector<float>(y, y + 3), (std::vector<float>{11, 0, 3.5f}));
}

class AddAnyShape : public test::ImplTest<const Impl<Add>*> {};
TEST_P(AddAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<Add>(*GetParam(),
                                              [](auto& t, const test::RowShape& s, DType dtype) {
                                                return Add::Args{
                                                    .a = t.random({s.rows, s.dim}, dtype),
                                                    .b = t.random({s.rows, s.dim}, dtype),
                                                    .y = t.output({s.rows, s.dim}, dtype)};
                                              },
                                              {.rows = &Add::Args::a}));
}

INSTANTIATE_TEST_SUITE_P(All, AddAnyShape, testing::ValuesIn(test::candidates<Add>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
