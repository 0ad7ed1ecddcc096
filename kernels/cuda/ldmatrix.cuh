/// Operands of mma from shared memory: ldmatrix (sm_75 and later).
/// Source: PTX ISA, "Warp-level matrix load instruction: ldmatrix".
///
/// Loads 8 x 8 matrices of 16-bit elements. Lane 8 i + r gives the address of row r of matrix i
/// (16 bytes, 16-byte aligned; for x2 the lanes from 16 up give nothing), and r[i] of lane l holds
/// of matrix i: row l / 4, columns 2 (l % 4) and the next. With _trans it is rows 2 (l % 4) and the
/// next, column l / 4.
/// Free of bank conflicts when the eight rows of a matrix lie in eight different 16-byte columns of
/// the 128-byte wide shared memory.
#ifndef VLR_KERNELS_CUDA_LDMATRIX_CUH_
#define VLR_KERNELS_CUDA_LDMATRIX_CUH_

#include <cstdint>

namespace vlr::cuda {

/// Shared memory's own address of a pointer, as ldmatrix and cp.async want it.
__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
/// The other way round.
__device__ inline char* shared_pointer(uint32_t address) {
  return static_cast<char*>(__cvta_shared_to_generic(address));
}

// "memory": what a barrier orders must not move across it.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline void ldmatrix_x2(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

__device__ inline void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_LDMATRIX_CUH_
