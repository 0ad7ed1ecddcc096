/// Copies from global to shared memory that run while the thread goes on: cp.async (sm_80 and
/// later). Source: PTX ISA, "Data movement and conversion instructions: non-bulk copy".
///
/// A thread's copies belong to the group that it commits next; groups end in the order of their
/// commits. After cp_async_wait the thread sees its own copies, after a barrier those of the
/// others.
#ifndef VLR_KERNELS_CUDA_CP_ASYNC_CUH_
#define VLR_KERNELS_CUDA_CP_ASYNC_CUH_

#include <cstdint>

namespace vlr::cuda {

/// 16 bytes from `global` to shared_address() `shared`, both 16-byte aligned, past the L1.
__device__ inline void cp_async_16(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(shared), "l"(global) : "memory");
}

/// The same, but zeroes where not `valid`; then nothing is read, and `global` may be any pointer.
__device__ inline void cp_async_16_or_zero(uint32_t shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most the kPending groups committed last are under way.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_CP_ASYNC_CUH_
