/// Transposing a matrix in the registers of a warp: movmatrix (sm_75 and later).
/// Source: PTX ISA, "Warp-level matrix transpose instruction: movmatrix".
#ifndef VLR_KERNELS_CUDA_MOVMATRIX_CUH_
#define VLR_KERNELS_CUDA_MOVMATRIX_CUH_

#include <cstdint>

namespace vlr::cuda {

/// 8 x 8 elements of 16 bits: lane l has of row l / 4 columns 2 (l % 4) and the next, and then of
/// column l / 4 these rows.
__device__ inline uint32_t transpose_8x8(uint32_t pair) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
  return transposed;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_MOVMATRIX_CUH_
