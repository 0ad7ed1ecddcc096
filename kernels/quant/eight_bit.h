/// 8 bits a value with a scale a row: int8 and fp8 (e4m3), on the host. For weights, whose rows are
/// output channels, and for activations, whose rows are tokens.
#ifndef VLR_KERNELS_QUANT_EIGHT_BIT_H_
#define VLR_KERNELS_QUANT_EIGHT_BIT_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/quant/quantized_weight.h"

namespace vlr {

constexpr float kInt8Max = 127, kE4m3Max = 448;

/// The code of x / scale, given 1 / scale (0 for a row of zeros): to nearest even, at most 127 in
/// size; of NaN, some code.
inline int8_t to_int8(float x, float inverse) {
  const float v = std::nearbyintf(x * inverse);
  return static_cast<int8_t>(v > 127 ? 127 : v >= -127 ? v : -127);
}

/// e4m3 <-> f32. Narrowing rounds to nearest even and saturates at 448; NaN stays NaN (0x7f).
uint8_t f32_to_e4m3(float v);
float e4m3_to_f32(uint8_t bits);

/// A row whose values are all smaller counts as zeros: 448 over anything above is finite.
constexpr float kLeastAbsmax = 0x1p-100f;
/// What a row's values are multiplied with to become codes. NaN stays NaN.
inline float inverse_scale(float absmax, float largest) {
  return absmax < kLeastAbsmax ? 0 : largest / absmax;
}

/// Largest code of the dtype (kI8 or kF8E4M3): a row's scale is its absmax over that.
constexpr float largest_code(DType t) { return t == DType::kI8 ? kInt8Max : kE4m3Max; }

struct RowQuantized {
  std::vector<std::byte> codes;  ///< [N, K]
  std::vector<float> scales;     ///< [N]
};
/// `values` [N, K] f32 | bf16 | f16, contiguous. `codes`: kI8 or kF8E4M3. scale = absmax / largest,
/// code = round(value * (largest / absmax)), both in f32.
RowQuantized quantize_weight_rows(const ConstTensor& values, DType codes, ThreadPool& threads);

}  // namespace vlr

#endif  // VLR_KERNELS_QUANT_EIGHT_BIT_H_
