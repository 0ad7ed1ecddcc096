#include "kernels/gelu/gelu.h"

#include "kernels/gelu/impls.h"

namespace vlr::ops {

Status Gelu::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  return expect_rows(kName, "y", a.y);
}

Cost Gelu::cost(const Args& a) {
  return {.bytes = static_cast<double>(2 * a.y.bytes()),
          .flops = 10.0 * static_cast<double>(a.y.numel())};
}

Tolerance Gelu::tolerance(const Args& a) {
  // Left of about -3 the terms of 1 + tanh (1 + erf) cancel: an absolute error of a few f32 ulp of
  // 1, times x.
  return {.rel = 16 * dtype_epsilon(a.y.dtype), .abs = 1e-6};
}

std::span<const Impl<Gelu>> Gelu::impls() {
  static constexpr Impl<Gelu> kImpls[] = {
      {"simd", Device::kCpu, gelu_simd},
      {"reference", Device::kCpu, gelu_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
