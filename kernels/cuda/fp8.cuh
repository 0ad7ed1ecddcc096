/// e4m3: four bits of exponent, three of mantissa, no infinities. The same bits everywhere: cvt
/// from sm_89 on, integer arithmetic before. Sources: PTX ISA, "cvt"; Micikevicius et al. 2022.
#ifndef VLR_KERNELS_CUDA_FP8_CUH_
#define VLR_KERNELS_CUDA_FP8_CUH_

#include <cuda_fp16.h>

#include <cstdint>

namespace vlr::cuda {

struct E4M3 {
  uint8_t bits;
};

#if __CUDA_ARCH__ >= 890

/// Two codes, `low` in the low byte: to nearest even, at most 448 in size; NaN is 0x7f.
__device__ inline uint32_t to_e4m3_pair(float low, float high) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

/// The value of the code in the low byte of `pair`, and of the one above it.
__device__ inline float2 from_e4m3_pair(uint32_t pair) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(pair)));
  return __half22float2(reinterpret_cast<const __half2&>(halves));
}

#else

__device__ inline uint32_t to_e4m3_bits(float v) {
  const uint32_t bits = __float_as_uint(v), magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  // Below 2^-6 codes are 2^-9 apart, as f32 is from 2^14 on: the sum rounds, and counts the steps.
  // Above, the four bits of the mantissa's end round it; exponents differ by 127 - 7.
  const uint32_t code =
      magnitude < 0x3c800000u
          ? __float_as_uint(__fadd_rn(__uint_as_float(magnitude), 0x1p14f)) - 0x46800000u
          : ((magnitude + 0x7ffffu + (magnitude >> 20 & 1)) >> 20) - (120 << 3);
  return (bits >> 24 & 0x80) | min(code, 0x7eu);
}

__device__ inline uint32_t to_e4m3_pair(float low, float high) {
  return to_e4m3_bits(low) | to_e4m3_bits(high) << 8;
}

__device__ inline float from_e4m3_bits(uint32_t code) {
  if ((code & 0x7f) == 0x7f) return __uint_as_float(0x7fffffffu);
  return __uint_as_float((code & 0x80) << 24 | (code & 0x7f) << 20) * 0x1p120f;
}

__device__ inline float2 from_e4m3_pair(uint32_t pair) {
  return {from_e4m3_bits(pair), from_e4m3_bits(pair >> 8)};
}

#endif

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_FP8_CUH_
