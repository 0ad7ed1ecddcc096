#include "kernels/add_rmsnorm/add_rmsnorm.h"

#include "kernels/add/add.h"
#include "tests/kernels/row_ops.h"

namespace vlr::ops {
namespace {
using test::OpTester;

TEST(AddRmsNormCheck, RefusesWhatTheContractExcludes) {
  void* const data = nullptr;  // shapes alone are looked at
  const auto f32 = [&](std::initializer_list<int64_t> dims) {
    return Tensor(data, DType::kF32, dims);
  };
  const AddRmsNorm::Args good{
      .a = f32({2, 3}), .b = f32({2, 3}), .weight = f32({3}), .sum = f32({2, 3}), .y = f32({2, 3})};
  EXPECT_TRUE(AddRmsNorm::check(good).ok());
  AddRmsNorm::Args a = good;
  a.b = f32({2, 4});
  EXPECT_EQ(AddRmsNorm::check(a).message(),
            "add_rmsnorm: add: b must have the shape of f32[2, 3], got f32[2, 4]");
  a = good;
  a.weight = f32({4});
  EXPECT_EQ(AddRmsNorm::check(a).message(), "add_rmsnorm: rmsnorm: weight must be [3], got f32[4]");
  a = good;
  a.y = Tensor(data, DType::kBF16, {2, 3});
  EXPECT_EQ(AddRmsNorm::check(a).message(), "add_rmsnorm: rmsnorm: y must be f32, got bf16[2, 3]");
}

TEST(AddRmsNormCheck, LetsTheSumAloneBeInPlace) {
  float data[32] = {};
  const auto at = [&](int64_t begin, std::initializer_list<int64_t> dims) {
    return Tensor(data + begin, DType::kF32, dims);
  };
  AddRmsNorm::Args a{.a = at(0, {2, 3}),
                     .b = at(6, {2, 3}),
                     .weight = at(12, {3}),
                     .sum = at(0, {2, 3}),
                     .y = at(15, {2, 3})};
  EXPECT_EQ(AddRmsNorm::check(a).message(), "");
  a.y = a.sum;
  EXPECT_EQ(AddRmsNorm::check(a).message(),
            "add_rmsnorm: y must not overlap a, which begins 0 bytes from it");
}

TEST(AddRmsNormReference, NormalisesTheRoundedSum) {
  // 256 + 1 is 256 in bf16, and so is the root of the mean square.
  const uint16_t a[] = {f32_to_bf16(256)}, b[] = {f32_to_bf16(1)}, weight[] = {f32_to_bf16(3)};
  uint16_t sum, y;
  Context ctx;
  const AddRmsNorm::Args args{.a = ConstTensor(a, DType::kBF16, {1, 1}),
                              .b = ConstTensor(b, DType::kBF16, {1, 1}),
                              .weight = ConstTensor(weight, DType::kBF16, {1}),
                              .sum = Tensor(&sum, DType::kBF16, {1, 1}),
                              .y = Tensor(&y, DType::kBF16, {1, 1})};
  ASSERT_TRUE(test::implementation<AddRmsNorm>("reference").run(args, ctx).ok());
  EXPECT_EQ(bf16_to_f32(sum), 256);
  EXPECT_EQ(bf16_to_f32(y), 3);
}

struct Case {
  int64_t rows, dim;
  DType dtype = DType::kF32;
  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(dim) + std::string(dtype_name(dtype));
  }
};
constexpr Case kCases[] = {{0, 8},    {1, 1},    {3, 31},   {5, 264},  {300, 256}, {9, 1024},
                           {5, 2048}, {3, 2560}, {6, 4096}, {2, 1283}, {1, 10240}, {2, 10248}};

AddRmsNorm::Args slice(AddRmsNorm::Args some, int64_t begin, int64_t count) {
  some.a = some.a.slice(0, begin, count);
  some.b = some.b.slice(0, begin, count);
  some.sum = some.sum.slice(0, begin, count);
  some.y = some.y.slice(0, begin, count);
  return some;
}

using Param = std::tuple<const Impl<AddRmsNorm>*, Case>;
class AddRmsNormImpl : public test::ImplTest<Param> {};

TEST_P(AddRmsNormImpl, MatchesReference) {
  const auto& [impl, c] = GetParam();
  for (bool strided : {false, true}) {
    OpTester<AddRmsNorm> t(*impl, strided);
    const Tensor a = t.random({c.rows, c.dim}, c.dtype), b = t.random({c.rows, c.dim}, c.dtype);
    const Tensor weight = t.random_dense({c.dim}, c.dtype);
    const Tensor sum = t.output({c.rows, c.dim}, c.dtype), y = t.output({c.rows, c.dim}, c.dtype);
    const AddRmsNorm::Args args{.a = a, .b = b, .weight = weight, .sum = sum, .y = y, .eps = 1e-6f};
    EXPECT_TRUE(test::runs_everywhere<AddRmsNorm>(args));
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    EXPECT_TRUE(t.same_bits_everywhere(args));
    EXPECT_TRUE(test::rows_do_not_depend_on_batch(t, args, c.rows, slice, 2));
  }
}

/// The sum takes the place of either operand, and is exact.
TEST_P(AddRmsNormImpl, AddsInPlace) {
  const auto& [impl, c] = GetParam();
  for (bool first : {true, false}) {
    OpTester<AddRmsNorm> t(*impl);
    const Tensor other = t.random({c.rows, c.dim}, c.dtype);
    const Tensor weight = t.random_dense({c.dim}, c.dtype);
    const Tensor sum = t.in_place({c.rows, c.dim}, c.dtype), y = t.output({c.rows, c.dim}, c.dtype);
    const AddRmsNorm::Args args{.a = first ? sum : other,
                                .b = first ? other : sum,
                                .weight = weight,
                                .sum = sum,
                                .y = y,
                                .eps = 1e-6f};
    if (!test::takes(*impl, args)) continue;
    EXPECT_TRUE(t.matches_reference(args));
    const std::vector<std::byte> got = t.run(args);
    ASSERT_EQ(t.error(), "");
    const std::vector<std::byte> want =
        t.run(args, 1, &test::implementation<AddRmsNorm>("reference"));
    ASSERT_EQ(t.error(), "");
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() / 2), 0) << "the sum";
  }
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AddRmsNormImpl);  // the CPU has its reference alone
INSTANTIATE_TEST_SUITE_P(All, AddRmsNormImpl,
                         testing::Combine(testing::ValuesIn(test::candidates<AddRmsNorm>()),
                                          testing::ValuesIn(test::in_every_dtype(kCases))),
                         test::CaseName());

class AddRmsNormAnyShape : public test::ImplTest<const Impl<AddRmsNorm>*> {};
TEST_P(AddRmsNormAnyShape, MatchesReference) {
  EXPECT_TRUE(test::matches_in_any_shape<AddRmsNorm>(
      *GetParam(),
      [](auto& t, const test::RowShape& s, DType dtype) {
        return AddRmsNorm::Args{.a = t.random({s.rows, s.dim}, dtype),
                                .b = t.random({s.rows, s.dim}, dtype),
                                .weight = t.random_dense({s.dim}, dtype),
                                .sum = t.output({s.rows, s.dim}, dtype),
                                .y = t.output({s.rows, s.dim}, dtype),
                                .eps = 1e-6f};
      },
      {.rows = &AddRmsNorm::Args::a}));
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(AddRmsNormAnyShape);
INSTANTIATE_TEST_SUITE_P(All, AddRmsNormAnyShape, testing::ValuesIn(test::candidates<AddRmsNorm>()),
                         test::ImplName());

}  // namespace
}  // namespace vlr::ops
