/// Elements of a tensor on the device: one type a dtype, widened to f32 and back.
#ifndef VLR_KERNELS_CUDA_ELEMENT_CUH_
#define VLR_KERNELS_CUDA_ELEMENT_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/core/tensor.h"

namespace vlr::cuda {

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline float widen(__half v) { return __half2float(v); }

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

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_ELEMENT_CUH_
