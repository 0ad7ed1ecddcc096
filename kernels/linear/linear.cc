#include "kernels/linear/linear.h"

#include "kernels/linear/impls.h"

namespace vlr::ops {

Status Linear::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "w", a.w, {-1, a.x.dim(1)}));
  const int64_t n = a.w.dim(0);
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {a.x.dim(0), n}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "w", a.w, {DType::kF32, DType::kBF16, DType::kF16}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (a.bias.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "bias", a.bias, {n}));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "bias", a.bias, {a.w.dtype}));
  }
  if (!a.w.contiguous()) return invalid(kName, "w must be contiguous");
  if (n < 1 || a.x.dim(1) < 1)
    return invalid(kName, "N and K must be at least 1, got w " + describe(a.w));
  return {};
}

Cost Linear::cost(const Args& a) {
  const double m = static_cast<double>(a.x.dim(0)), k = static_cast<double>(a.x.dim(1)),
               n = static_cast<double>(a.w.dim(0));
  return {.bytes = static_cast<double>(a.x.bytes() + a.w.bytes() + a.y.bytes()),
          .flops = 2 * m * n * k};
}

Tolerance Linear::tolerance(const Args& a) {
  // A chain of K f32 roundings of partial sums of random sign: errors add up like a random walk,
  // and relative to the size of a row's terms, not of their sum. Test operands are of size about 1,
  // so partial sums are of size sqrt(K).
  const double k = static_cast<double>(a.x.dim(1));
  return {.rel = 0x1p-22, .abs = 4 * k * 0x1p-24};
}

std::span<const Impl<Linear>> Linear::impls() {
  static constexpr Impl<Linear> kImpls[] = {
    {"blocked", Device::kCpu, linear_blocked, nullptr, linear_blocked_workspace},
    {"reference", Device::kCpu, linear_reference},
#if VLR_WITH_OPENBLAS
    {"openblas", Device::kCpu, linear_openblas, nullptr, linear_openblas_workspace},
#endif
  };
  return kImpls;
}

}  // namespace vlr::ops
