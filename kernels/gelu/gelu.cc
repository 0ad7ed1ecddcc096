#include "kernels/gelu/gelu.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/gelu/impls.h"

namespace vlr::ops {

Status Gelu::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  return expect_same_or_no_overlap(kName, "y", a.y, "x", a.x);
}

namespace {
bool is_f32(const Gelu::Args& a, const Context&) { return a.x.dtype == DType::kF32; }
}  // namespace

Cost Gelu::cost(const Args& a) {
  return {.bytes = static_cast<double>(2 * a.y.bytes()),
          .flops = 10.0 * static_cast<double>(a.y.numel())};
}

Tolerance Gelu::tolerance(const Args& a) {
  // One rounding to the dtype of y, after a formula in f32. Left of about -3 the terms of 1 + tanh
  // (1 + erf) cancel: an absolute error of a few f32 ulp of 1, times x.
  return {.rel = 2 * dtype_epsilon(a.y.dtype) + 14 * 0x1p-24, .abs = 1e-6 + least_step(a.y.dtype)};
}

std::span<const Impl<Gelu>> Gelu::impls() {
  static constexpr Impl<Gelu> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, gelu_vector},
#endif
    {"simd", Device::kCpu, gelu_simd, is_f32},
    {"reference", Device::kCpu, gelu_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
