#include "kernels/quant/eight_bit.h"

#include <algorithm>
#include <bit>

#include "kernels/core/widen.h"
#include "kernels/quant/absmax.h"

namespace vlr {
namespace {

constexpr uint32_t kInfinityBits = 0x7f800000;

/// Without branches, for loops that become vectors.
uint8_t narrow_to_e4m3(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v), magnitude = bits & 0x7fffffff;
  const uint32_t sign = (bits >> 24) & 0x80;
  const uint32_t capped = std::min(magnitude, std::bit_cast<uint32_t>(kE4m3Max));
  // From 2^-6 up: to nearest even at bit 20, and the exponent's bias from 127 to 7.
  const uint32_t rounded = capped + 0x7ffff + ((capped >> 20) & 1);
  const uint32_t normal = (rounded >> 20) - (120u << 3);
  // Below, codes count units of 2^-9: those of the last bit of floats from 2^14 on.
  const float shifted = std::bit_cast<float>(capped) + 0x1p14f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0x1p14f);
  const uint32_t code = sign | (capped < std::bit_cast<uint32_t>(0x1p-6f) ? subnormal : normal);
  return static_cast<uint8_t>(magnitude > kInfinityBits ? 0x7f : code);
}

}  // namespace

uint8_t f32_to_e4m3(float v) { return narrow_to_e4m3(v); }

float e4m3_to_f32(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80) << 24, magnitude = bits & 0x7f;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000);
  // As the bits of an f32 it is the value times 2^-120, subnormal or not.
  return std::bit_cast<float>(sign | magnitude << 20) * 0x1p120f;
}

RowQuantized quantize_weight_rows(const ConstTensor& values, DType codes, ThreadPool& threads) {
  const int64_t rows = values.dim(0), cols = values.dim(1);
  const float largest = largest_code(codes);
  RowQuantized out;
  out.codes.resize(static_cast<size_t>(rows * cols));
  out.scales.resize(static_cast<size_t>(rows));
  std::vector<float> wide(static_cast<size_t>(threads.num_threads() * cols));
  threads.parallel_for(rows, [&](int64_t r, int thread) {
    float* v = wide.data() + thread * cols;
    widen(values, r * cols, cols, v);
    const float most = absmax(v, cols), inverse = inverse_scale(most, largest);
    out.scales[static_cast<size_t>(r)] = most / largest;
    std::byte* row = out.codes.data() + r * cols;
    if (codes == DType::kI8) {
      for (int64_t k = 0; k < cols; ++k) row[k] = std::bit_cast<std::byte>(to_int8(v[k], inverse));
    } else {
      for (int64_t k = 0; k < cols; ++k)
        row[k] = static_cast<std::byte>(narrow_to_e4m3(v[k] * inverse));
    }
  });
  return out;
}

}  // namespace vlr
