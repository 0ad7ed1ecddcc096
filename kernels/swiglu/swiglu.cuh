/// silu on the device, for the ops that gate with it.
///   16-bit results take it from the special function unit (one 2^x, one reciprocal), with an error
///   below 1e-5 of the result: a fiftieth of what rounding to f16 costs. f32 takes the accurate
///   library functions.
#ifndef VLR_KERNELS_SWIGLU_SWIGLU_CUH_
#define VLR_KERNELS_SWIGLU_SWIGLU_CUH_

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/reciprocal.cuh"

namespace vlr::cuda {

/// z / (1 + e^-z), rounded to T.
template <class T>
__device__ inline float silu(float z) {
  if constexpr (sizeof(T) == 4) {
    return z / (1 + expf(-z));
  } else {
    const float e = exp2_approx(z * -1.4426950408889634f);
    return widen(narrow<T>(z * reciprocal_approx(1 + e)));
  }
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_SWIGLU_SWIGLU_CUH_
