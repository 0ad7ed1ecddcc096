/// Elements of a tensor on the device: one type a dtype, widened to f32 and back.
#ifndef VLR_KERNELS_CUDA_ELEMENT_CUH_
#define VLR_KERNELS_CUDA_ELEMENT_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/core/tensor.h"
#include "kernels/cuda/fp8.cuh"

namespace vlr::cuda {

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(int8_t v) { return static_cast<float>(v); }
__device__ inline float widen(E4M3 v) { return from_e4m3_pair(v.bits).x; }

/// Rounds to nearest even; codes of 8 bits saturate at 127 and 448.
template <class T>
__device__ inline T narrow(float v);
template <>
__device__ inline float narrow<float>(float v) {
  return v;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}
template <>
__device__ inline __half narrow<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline int8_t narrow<int8_t>(float v) {
  return static_cast<int8_t>(min(max(__float2int_rn(v), -127), 127));
}
template <>
__device__ inline E4M3 narrow<E4M3>(float v) {
  return {static_cast<uint8_t>(to_e4m3_pair(v, 0))};
}

/// Calls body(T()) with the element type of a floating-point dtype.
template <class Body>
auto with_element(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kBF16:
      return body(__nv_bfloat16());
    case DType::kF16:
      return body(__half());
    default:
      return body(float());
  }
}

/// The same for kernels of 16-bit elements.
template <class Body>
auto with_16_bit_element(DType dtype, Body&& body) {
  return dtype == DType::kBF16 ? body(__nv_bfloat16()) : body(__half());
}

/// The same for codes of 8 bits, kI8 or kF8E4M3.
template <class Body>
auto with_code(DType dtype, Body&& body) {
  return dtype == DType::kI8 ? body(int8_t()) : body(E4M3());
}

/// Calls body(X(), W()) with the element types of an activation and of its weight, which is of the
/// same dtype or, where the activation is f32, of any.
template <class Body>
auto with_activation_and_weight(DType x, DType weight, Body&& body) {
  if (x == DType::kF32) {
    return with_element(weight, [&](auto w) { return body(float(), w); });
  }
  return with_16_bit_element(x, [&](auto element) { return body(element, element); });
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_ELEMENT_CUH_
