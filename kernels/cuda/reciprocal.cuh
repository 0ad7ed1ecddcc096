/// 1 / x by the special function unit. Source: PTX ISA, "rcp".
#ifndef VLR_KERNELS_CUDA_RECIPROCAL_CUH_
#define VLR_KERNELS_CUDA_RECIPROCAL_CUH_

namespace vlr::cuda {

/// 1 / x to one unit in the last place, subnormals as zero; exactly 0 for infinity.
__device__ inline float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_RECIPROCAL_CUH_
