#include "kernels/swiglu/swiglu.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/swiglu/impls.h"

namespace vlr::ops {

Status SwiGlu::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "gate", a.gate, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "up", a.up, a.gate));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.gate));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "gate", a.gate));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "up", a.up, {a.gate.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.gate.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "gate", a.gate));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "up", a.up));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  VLR_RETURN_IF_ERROR(expect_same_or_no_overlap(kName, "y", a.y, "gate", a.gate));
  return expect_same_or_no_overlap(kName, "y", a.y, "up", a.up);
}

namespace {
bool is_f32(const SwiGlu::Args& a, const Context&) { return a.gate.dtype == DType::kF32; }
}  // namespace

Cost SwiGlu::cost(const Args& a) {
  return {.bytes = static_cast<double>(3 * a.y.bytes()),
          .flops = 5.0 * static_cast<double>(a.y.numel())};
}

Tolerance SwiGlu::tolerance(const Args& a) {
  // silu within a few ulp of f32, then two roundings to the dtype of y; gates below -80 vanish.
  // `up` is of size about 1: around zero, two steps of f16 and a little.
  return {.rel = 4 * dtype_epsilon(a.y.dtype) + 12 * 0x1p-24,
          .abs = 1e-30 + 8 * least_step(a.y.dtype)};
}

std::span<const Impl<SwiGlu>> SwiGlu::impls() {
  static constexpr Impl<SwiGlu> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, swiglu_vector},
#endif
    {"simd", Device::kCpu, swiglu_simd, is_f32},
    {"reference", Device::kCpu, swiglu_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
