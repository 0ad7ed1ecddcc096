/// MXFP4: e2m1 codes, two a byte, and a scale for every 32 values of a row that is a power of two.
/// Encoding and decoding on the host; what the bytes mean is in kernels/quant/quantized_weight.h.
/// Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3 and 6.3.
#ifndef VLR_KERNELS_QUANT_MXFP4_H_
#define VLR_KERNELS_QUANT_MXFP4_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/core/integer.h"
#include "kernels/core/thread_pool.h"
#include "kernels/quant/quantized_weight.h"

namespace vlr {

constexpr int64_t kMxfp4Block =
    32;  ///< values of a row that share a scale; its last ones may be fewer
constexpr int64_t mxfp4_row_blocks(int64_t cols) { return ceil_div(cols, kMxfp4Block); }

/// Code -> value: a sign, two bits of exponent, one of mantissa.
inline constexpr std::array<float, 16> kE2m1Values = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,
                                                      4.0f,  6.0f,  -0.0f, -0.5f, -1.0f, -1.5f,
                                                      -2.0f, -3.0f, -4.0f, -6.0f};
/// To nearest, ties to the even code; at most 6 in size. NaN becomes some code.
uint8_t f32_to_e2m1(float v);

/// A scale: 2^(bits - 127), 255 is NaN.
constexpr float e8m0_to_f32(uint8_t bits) {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return bits == 0 ? 0x1p-127f : std::bit_cast<float>(uint32_t{bits} << 23);
}

struct Mxfp4Tensor {
  std::vector<std::byte> codes;  ///< [N, K / 2], the value with the lower index in the low nibble
  std::vector<uint8_t> scales;   ///< [N, ceil(K / 32)]
};
/// `values` [N, K] f32 | bf16 | f16, contiguous, finite; K even. A block's scale is the power of two
/// with which its largest value is from 4 up to 8, and what is above 6 then becomes 6.
Mxfp4Tensor encode_mxfp4(const ConstTensor& values, ThreadPool& threads);

}  // namespace vlr

#endif  // VLR_KERNELS_QUANT_MXFP4_H_
