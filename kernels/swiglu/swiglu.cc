#include "kernels/swiglu/swiglu.h"

#include "kernels/swiglu/impls.h"

namespace vlr::ops {

Status SwiGlu::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "gate", a.gate, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "up", a.up, a.gate));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.gate));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "gate", a.gate, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "up", a.up, {a.gate.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.gate.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "gate", a.gate));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "up", a.up));
  return expect_rows(kName, "y", a.y);
}

Cost SwiGlu::cost(const Args& a) {
  return {.bytes = static_cast<double>(3 * a.y.bytes()),
          .flops = 5.0 * static_cast<double>(a.y.numel())};
}

Tolerance SwiGlu::tolerance(const Args& a) {
  // exp within 4 ulp, then three roundings; gates below -80 vanish.
  return {.rel = 16 * dtype_epsilon(a.y.dtype), .abs = 1e-30};
}

std::span<const Impl<SwiGlu>> SwiGlu::impls() {
  static constexpr Impl<SwiGlu> kImpls[] = {
      {"simd", Device::kCpu, swiglu_simd},
      {"reference", Device::kCpu, swiglu_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
