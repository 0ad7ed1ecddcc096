/// Barriers of some of a block's warps, by number: 1 to 15, since __syncthreads() is 0.
/// Source: PTX ISA, "bar, barrier".
#ifndef VLR_KERNELS_CUDA_NAMED_BARRIER_CUH_
#define VLR_KERNELS_CUDA_NAMED_BARRIER_CUH_

namespace vlr::cuda {

/// Waits until so many threads have come, these included. Whole warps come.
__device__ inline void named_barrier_sync(int number, int threads) {
  asm volatile("bar.sync %0, %1;" : : "r"(number), "r"(threads) : "memory");
}
/// Comes without waiting.
__device__ inline void named_barrier_arrive(int number, int threads) {
  asm volatile("bar.arrive %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_NAMED_BARRIER_CUH_
