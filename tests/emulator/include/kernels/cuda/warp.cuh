/// Sums and maxima over the lanes of a warp, and over warps. The order of sums, and so their bits,
/// is always the same.
#ifndef VLR_KERNELS_CUDA_WARP_CUH_
#define VLR_KERNELS_CUDA_WARP_CUH_

#include "../../../emu.h"

namespace vlr::cuda {

constexpr int kWarp = 32;

/// The sum over each aligned group of kLanes lanes, in every lane: a butterfly.
template <int kLanes>
__device__ inline float lane_sum(float v) {
  static_assert(kLanes <= kWarp && (kLanes & (kLanes - 1)) == 0);
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    v += __shfl_xor_sync(0xffffffffu, v, distance);
  return v;
}

/// The sum over all lanes, in every lane.
__device__ inline float warp_sum(float v) { return lane_sum<kWarp>(v); }

/// The sum over the threads of a block that have the same threadIdx.y, in each of them: a butterfly
/// in every warp, then the warps in ascending order. blockDim.x is a multiple of the warp, and all
/// threads of the block take part. `partial` is shared memory, a float for every warp of the block,
/// which no other call may use.
__device__ inline float row_sum(float v, float* partial) {
  v = warp_sum(v);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return v;
  float* mine = partial + threadIdx.y * warps;
  if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = v;
  __syncthreads();
  float sum = mine[0];
  for (int w = 1; w < warps; ++w) sum += mine[w];
  return sum;
}

/// The maximum over each aligned group of kLanes lanes, in every lane.
template <int kLanes>
__device__ inline uint32_t lane_max(uint32_t v) {
  static_assert(kLanes <= kWarp && (kLanes & (kLanes - 1)) == 0);
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    v = max(v, __shfl_xor_sync(0xffffffffu, v, distance));
  return v;
}

/// The maximum over the threads that row_sum adds up, in each of them and on the same terms.
__device__ inline uint32_t row_max(uint32_t v, uint32_t* partial) {
  v = lane_max<kWarp>(v);
  const int warps = static_cast<int>(blockDim.x) / kWarp, lane = threadIdx.x % kWarp;
  if (warps == 1) return v;
  uint32_t* mine = partial + threadIdx.y * warps;
  if (lane == 0) mine[threadIdx.x / kWarp] = v;
  __syncthreads();
  return lane_max<kWarp>(mine[lane < warps ? lane : 0]);
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_WARP_CUH_
