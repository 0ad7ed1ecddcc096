/// Matrix products of a warp on tensor cores: mma.sync, 16-bit operands and f32 accumulators, or s8
/// operands and s32 accumulators (sm_80 and later).
/// Source: PTX ISA, "Matrix multiply-accumulate operation using mma".
///
/// d += A B with A [16, k] row-major and B [k, 8] column-major. Lane l owns, with g = l / 4 and
/// t = l % 4 (each 32-bit register holds two neighbours along k, the lower one in the low half):
///   a[0] row g,     k 2t, 2t + 1          a[2] the same rows, k + 8     (k = 16)
///   a[1] row g + 8, k 2t, 2t + 1          a[3]
///   b[0] column g,  k 2t, 2t + 1          b[1] the same, k + 8          (k = 16)
///   d[0], d[1]  row g, columns 2t, 2t + 1          d[2], d[3]  row g + 8
/// So two neighbouring accumulator tiles, packed, are the A operand of a following product.
/// Of s8 a register holds four neighbours along k: the same bytes at the same places, and k = 32.
#ifndef VLR_KERNELS_CUDA_MMA_CUH_
#define VLR_KERNELS_CUDA_MMA_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace vlr::cuda {

/// d += A B, [16, 16] x [16, 8]. T: __nv_bfloat16 or __half.
template <class T>
__device__ inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// d += A B, [16, 8] x [8, 8].
template <class T>
__device__ inline void mma_16x8x8(float (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
  }
}

/// d += A B, [16, 32] x [32, 8], of s8. Exact; wraps around.
__device__ inline void mma_16x8x32_s8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                      uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two f32 rounded to nearest as one register of an operand, `low` in its low half.
template <class T>
__device__ inline uint32_t pack(float low, float high) {
  uint32_t bits;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    memcpy(&bits, &v, sizeof(bits));
  } else {
    const __half2 v = __floats2half2_rn(low, high);
    memcpy(&bits, &v, sizeof(bits));
  }
  return bits;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_MMA_CUH_
