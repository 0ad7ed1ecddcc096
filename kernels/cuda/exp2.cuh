/// 2^x by the special function unit. Source: PTX ISA, "ex2".
#ifndef VLR_KERNELS_CUDA_EXP2_CUH_
#define VLR_KERNELS_CUDA_EXP2_CUH_

namespace vlr::cuda {

/// 2^x to two units in the last place, subnormals as zero; exactly 1 for 0 and exactly 0 for -inf.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_EXP2_CUH_
