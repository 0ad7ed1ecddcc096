// Views, what all contracts check, and how an implementation is chosen.

#include "kernels/core/op.h"

#include <gtest/gtest.h>

#include <array>
#include <stdexcept>

namespace vlr {
namespace {

using Matrix = std::array<float, 64>;

TEST(TensorView, HasNoRoomForMoreThanFourAxes) {
  Matrix m;
  EXPECT_THROW(Tensor(m.data(), DType::kF32, {1, 1, 1, 1, 1}), std::length_error);
  const int64_t dims[] = {1, 1, 1, 1, 1};
  EXPECT_THROW(contiguous_view(m.data(), DType::kF32, dims), std::length_error);
  const Tensor four(m.data(), DType::kF32, {1, 1, 1, 4});
  EXPECT_THROW(four.split_last(2), std::length_error);
  const Tensor two(m.data(), DType::kF32, {2, 6});
  EXPECT_THROW(two.split_last(4), std::length_error);
  EXPECT_EQ(two.split_last(3).dim(1), 2);
}

TEST(TensorView, ShowsOnlyWhatIsThere) {
  Matrix m;
  const Tensor t(m.data(), DType::kF32, {2, 6});
  EXPECT_EQ(t.slice(1, 2, 4).data, m.data() + 2);
  EXPECT_EQ(t.slice(1, 6, 0).numel(), 0);
  for (const int axis : {-1, 2, kMaxRank}) EXPECT_THROW(t.slice(axis, 0, 1), std::length_error);
  EXPECT_THROW(t.slice(1, 3, 4), std::length_error);
  EXPECT_THROW(t.slice(1, -1, 2), std::length_error);
  EXPECT_THROW(t.slice(1, 2, -1), std::length_error);
  EXPECT_THROW(Tensor().slice(0, 0, 0), std::length_error);
}

std::string overlap(const ConstTensor& y, const ConstTensor& x) {
  return ops::expect_no_overlap("op", "y", y, "x", x).message();
}

TEST(ExpectNoOverlap, RefusesSharedBytes) {
  Matrix m;
  const Tensor all(m.data(), DType::kF32, {8, 8});
  const Tensor first = all.slice(0, 0, 4), last = all.slice(0, 4, 4), middle = all.slice(0, 3, 4);
  EXPECT_EQ(overlap(first, last), "");
  EXPECT_EQ(overlap(last, first), "");
  EXPECT_EQ(overlap(first, middle), "op: y must not overlap x, which begins 96 bytes from it");
  EXPECT_EQ(overlap(middle, first), "op: y must not overlap x, which begins -96 bytes from it");
  EXPECT_NE(overlap(all, all), "");
  EXPECT_NE(overlap(all, middle), "");
}

TEST(ExpectNoOverlap, KnowsColumnsOfOneMatrix) {
  Matrix m;
  const Tensor all(m.data(), DType::kF32, {4, 16});
  const auto columns = [&](int64_t begin, int64_t count) { return all.slice(1, begin, count); };
  EXPECT_EQ(overlap(columns(0, 8), columns(8, 8)), "");
  EXPECT_EQ(overlap(columns(8, 8), columns(0, 8)), "");
  EXPECT_EQ(overlap(columns(4, 4), columns(12, 4)), "");
  EXPECT_NE(overlap(columns(0, 9), columns(8, 8)), "");
  EXPECT_NE(overlap(columns(8, 8), columns(0, 9)), "");
  // Heads of several axes; rows from different rows of the matrix; one row among several.
  EXPECT_EQ(overlap(columns(0, 8).split_last(4), columns(8, 8).split_last(2)), "");
  EXPECT_EQ(overlap(columns(0, 8).slice(0, 0, 3), columns(8, 8).slice(0, 1, 3)), "");
  EXPECT_EQ(overlap(columns(8, 8).slice(0, 1, 1), columns(0, 8)), "");
  EXPECT_NE(overlap(columns(4, 8).slice(0, 1, 1), columns(0, 8)), "");
  // Rows of another step: where they lie is not looked into.
  const Tensor others(m.data() + 8, DType::kF32, {2, 4});
  EXPECT_NE(overlap(others, columns(0, 8)), "");
}

TEST(ExpectNoOverlap, PassesWhatHasNoMemory) {
  Matrix m;
  const Tensor all(m.data(), DType::kF32, {8, 8});
  EXPECT_EQ(overlap(Tensor(nullptr, DType::kF32, {8, 8}), Tensor(nullptr, DType::kF32, {8, 8})),
            "");
  EXPECT_EQ(overlap(all.slice(0, 2, 0), all), "");
  EXPECT_EQ(overlap(all, Tensor()), "");
}

TEST(ExpectSameOrNoOverlap, TakesTheViewItself) {
  Matrix m;
  const Tensor all(m.data(), DType::kF32, {8, 8});
  const auto check = [&](const ConstTensor& y, const ConstTensor& x) {
    return ops::expect_same_or_no_overlap("op", "y", y, "x", x).ok();
  };
  EXPECT_TRUE(check(all, all));
  EXPECT_TRUE(check(all.slice(1, 0, 4), all.slice(1, 0, 4)));
  EXPECT_TRUE(check(all.slice(0, 0, 4), all.slice(0, 4, 4)));
  EXPECT_FALSE(check(all.slice(0, 0, 4), all.slice(0, 1, 4)));
  EXPECT_FALSE(check(Tensor(m.data(), DType::kF32, {2, 4}), all.slice(0, 0, 2).slice(1, 0, 4)));
  // One row has no step.
  EXPECT_TRUE(check(Tensor(m.data(), DType::kF32, {1, 4}), all.slice(0, 0, 1).slice(1, 0, 4)));
  EXPECT_FALSE(check(all, Tensor(m.data(), DType::kI32, {8, 8})));
}

/// Takes numbers up to what its implementations do.
struct Count {
  static constexpr std::string_view kName = "count";
  struct Args {
    int number = 0;
  };
  static Status check(const Args&) { return {}; }
  static std::span<const Impl<Count>> impls();
};

bool up_to_ten(const Count::Args& a, const Context& ctx) { return ctx.blas || a.number <= 10; }
bool up_to_twenty(const Count::Args& a, const Context&) { return a.number <= 20; }
Status says_yes(const Count::Args&, Context&) { return {}; }

std::span<const Impl<Count>> Count::impls() {
  static constexpr Impl<Count> kImpls[] = {
      {"fingers", Device::kCpu, says_yes, up_to_ten},
      {"toes", Device::kCpu, says_yes, up_to_twenty},
      {"abacus", Device::kCuda, says_yes},
  };
  return kImpls;
}

std::string chosen(int number, const std::string& wanted = {}, Device device = Device::kCpu) {
  const ImplChoices choices = {{"count", wanted}};
  Context ctx;
  ctx.device = device;
  if (!wanted.empty()) ctx.choices = &choices;
  const auto impl = ops::choose<Count>({number}, ctx);
  return std::string(impl.ok() ? (*impl)->name : impl.error().message());
}

TEST(Choose, TakesTheFirstThatSupportsTheArguments) {
  EXPECT_EQ(chosen(10), "fingers");
  EXPECT_EQ(chosen(11), "toes");
  EXPECT_EQ(chosen(21, {}, Device::kCuda), "abacus");
  EXPECT_EQ(chosen(21), "count: no implementation on cpu for these arguments");
}

TEST(Choose, SupportsMayDependOnTheContext) {
  int any = 0;
  Context ctx;
  ctx.blas = reinterpret_cast<cuda::Blas*>(&any);
  const auto impl = ops::choose<Count>({11}, ctx);
  ASSERT_TRUE(impl.ok());
  EXPECT_EQ((*impl)->name, "fingers");
}

TEST(Choose, NeverReplacesWhatWasAskedFor) {
  EXPECT_EQ(chosen(10, "toes"), "toes");
  EXPECT_EQ(chosen(11, "fingers"), "count: 'fingers' on cpu does not take these arguments");
  EXPECT_EQ(chosen(1, "foo"), "count: no implementation 'foo' on cpu; there are fingers, toes");
  EXPECT_EQ(chosen(1, "toes", Device::kCuda),
            "count: no implementation 'toes' on cuda; there is abacus");
}

}  // namespace
}  // namespace vlr
