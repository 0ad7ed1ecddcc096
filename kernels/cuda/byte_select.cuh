/// Bytes picked from two registers: prmt.
/// Source: PTX ISA, "Data movement and conversion instructions: prmt".
#ifndef VLR_KERNELS_CUDA_BYTE_SELECT_CUH_
#define VLR_KERNELS_CUDA_BYTE_SELECT_CUH_

#include <cstdint>

namespace vlr::cuda {

/// Byte i is the one that nibble i of `selector` names: 0..3 in a, 4..7 in b, each from the lowest.
/// Bit 3 of these nibbles must be 0; bits 16 to 31 do not matter. __byte_perm spends an operation
/// on making sure of that.
__device__ inline uint32_t byte_select(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(a), "r"(b), "r"(selector));
  return bytes;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_BYTE_SELECT_CUH_
