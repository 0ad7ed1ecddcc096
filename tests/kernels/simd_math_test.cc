// exp, silu and both GELUs against f64, over their whole range, on every target; and that targets
// agree.

// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/simd_math_test.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <vector>

#include "kernels/core/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::HWY_NAMESPACE {

enum Function { kExp, kSilu, kGeluTanh, kGeluErf };

void apply(int function, const std::vector<float>& x, std::vector<float>& y) {
  const auto f = [&](VecF32 v) HWY_ATTR {
    switch (function) {
      case kExp:
        return exp(v);
      case kSilu:
        return silu(v);
      case kGeluTanh:
        return gelu_tanh(v);
      default:
        return gelu_erf(v);
    }
  };
  map(static_cast<int64_t>(x.size()), y.data(), f, x.data());
}

}  // namespace vlr::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <numbers>

#include "tests/support/op_tester.h"

namespace vlr {
HWY_EXPORT(apply);

namespace {

struct Function {
  const char* name;
  double (*exact)(double);
  double max_ulp;  // where the result is a normal number
  double max_abs;  // and nowhere further off than the larger of the two
  float from, to;
};

const Function kFunctions[] = {
    {"exp", [](double x) { return std::exp(x); }, 1, 0x1p-149, -110, 95},
    {"silu", [](double x) { return x / (1 + std::exp(-x)); }, 3, 1e-30, -110, 110},
    {"gelu_tanh",
     [](double x) {
       return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
     },
     2, 1e-7, -20, 20},
    {"gelu_erf", [](double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); }, 5, 1e-35,
     -16, 16},
};

std::vector<float> points(const Function& f) {
  std::vector<float> x;
  constexpr int kPoints = 400'000;
  for (int i = 0; i <= kPoints; ++i) {
    x.push_back(f.from + (f.to - f.from) * static_cast<float>(i) / kPoints);
    x.push_back(std::ldexp(i % 2 ? 1.2345f : -1.7f, -i % 140));  // towards 0 from both sides
  }
  return x;
}

TEST(SimdMath, IsAsAccurateAsItSays) {
  for (int n = 0; n < 4; ++n) {
    const Function& f = kFunctions[n];
    const std::vector<float> x = points(f);
    std::vector<float> y(x.size());
    HWY_DYNAMIC_DISPATCH(apply)(n, x, y);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = f.exact(x[i]);
      if (std::fabs(exact) > std::numeric_limits<float>::max()) {
        ASSERT_TRUE(std::isinf(y[i])) << f.name << "(" << x[i] << ")";
        continue;
      }
      const double off = std::fabs(y[i] - exact);
      const double ulp = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
      if (off <= f.max_abs || exact == 0) continue;
      worst = std::max(worst, off / ulp);
      ASSERT_LE(off / ulp, f.max_ulp)
          << f.name << "(" << x[i] << ") = " << y[i] << ", exactly " << exact;
    }
    RecordProperty(std::string("worst_ulp_") + f.name, std::to_string(worst));
  }
}

TEST(SimdMath, EveryTargetGivesTheSameBits) {
  for (int n = 0; n < 4; ++n) {
    const std::vector<float> x = points(kFunctions[n]);
    std::vector<float> want(x.size()), y(x.size());
    HWY_DYNAMIC_DISPATCH(apply)(n, x, want);
    for (int64_t target : test::targets()) {
      const test::ScopedTarget scoped(target);
      HWY_DYNAMIC_DISPATCH(apply)(n, x, y);
      EXPECT_EQ(std::memcmp(y.data(), want.data(), y.size() * 4), 0)
          << kFunctions[n].name << " on " << hwy::TargetName(target);
    }
  }
}

TEST(SimdMath, LimitsAndNan) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<float> x = {0.0f, inf, -inf, nan, 1e30f, -1e30f};
  std::vector<float> y(x.size());
  for (int64_t target : test::targets()) {
    const test::ScopedTarget scoped(target);
    HWY_DYNAMIC_DISPATCH(apply)(0, x, y);
    EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 3), (std::vector<float>{1, inf, 0}));
    EXPECT_TRUE(std::isnan(y[3]));
    EXPECT_EQ(y[4], inf);
    EXPECT_EQ(y[5], 0);
    for (int gelu : {2, 3}) {
      HWY_DYNAMIC_DISPATCH(apply)(gelu, x, y);
      EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 3), (std::vector<float>{0, inf, 0}))
          << gelu;
      EXPECT_TRUE(std::isnan(y[3]));
      EXPECT_EQ(y[4], 1e30f);
      EXPECT_EQ(y[5], 0);
    }
  }
}

}  // namespace
}  // namespace vlr
#endif  // HWY_ONCE
