/// Reductions inside a warp.
#ifndef VLR_KERNELS_CUDA_WARP_CUH_
#define VLR_KERNELS_CUDA_WARP_CUH_

namespace vlr::cuda {

constexpr int kWarp = 32;

/// The sum over all lanes, in every lane. A butterfly: its order, and so its bits, are always the
/// same.
__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    v += __shfl_xor_sync(0xffffffffu, v, distance);
  return v;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_WARP_CUH_
