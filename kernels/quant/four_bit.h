/// NF4 and FP4 with double quantisation, value for value as bitsandbytes has them: encoding and
/// decoding on the host. What the bytes mean is in kernels/quant/quantized_weight.h. The two differ
/// in the codebook alone.
#ifndef VLR_KERNELS_QUANT_FOUR_BIT_H_
#define VLR_KERNELS_QUANT_FOUR_BIT_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/quant/quantized_weight.h"

namespace vlr {

constexpr int64_t kFourBitNestedBlock = 256;  ///< absmax values that share a nested absmax

/// Code -> value in [-1, 1], as f32.
inline constexpr std::array<float, 16> kNf4Codebook = {-1.0f,
                                                       -0.6961928009986877f,
                                                       -0.5250730514526367f,
                                                       -0.39491748809814453f,
                                                       -0.28444138169288635f,
                                                       -0.18477343022823334f,
                                                       -0.09105003625154495f,
                                                       0.0f,
                                                       0.07958029955625534f,
                                                       0.16093020141124725f,
                                                       0.24611230194568634f,
                                                       0.33791524171829224f,
                                                       0.44070982933044434f,
                                                       0.5626170039176941f,
                                                       0.7229568362236023f,
                                                       1.0f};

/// A bit of sign, and eight sizes; zero is positive twice.
inline constexpr std::array<float, 16> kFp4Codebook = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};

constexpr bool is_four_bit(WeightFormat format) {
  return format == WeightFormat::kNf4 || format == WeightFormat::kFp4;
}

constexpr const std::array<float, 16>& codebook(WeightFormat format) {
  return format == WeightFormat::kFp4 ? kFp4Codebook : kNf4Codebook;
}

/// The 256 values of the signed dynamic map, ascending, with which bitsandbytes stores absmax.
std::span<const float, 256> dynamic_map();

/// A tensor of any shape, flattened. Blocks of 64 values and groups of 256 blocks count from its
/// first value; the last one may be shorter.
struct FourBitTensor {
  std::vector<uint8_t> codes;        ///< ceil(numel / 2)
  std::vector<uint8_t> absmax;       ///< ceil(numel / 64)
  std::vector<float> nested_absmax;  ///< ceil(blocks / 256)
  float offset = 0;                  ///< mean of the blocks' absmax
};

/// Encodes `values` (f32 | bf16 | f16, contiguous) in nf4 or fp4.
FourBitTensor encode_four_bit(WeightFormat format, const ConstTensor& values, ThreadPool& threads);

/// Blocks that share a scale and an offset, when parts of so many values are joined. Without nested
/// scales every block has its own scale, and `largest` is 1.
int64_t four_bit_group_blocks(std::span<const int64_t> part_values,
                              int64_t largest = kFourBitNestedBlock);

/// The absmax of block `block` of a weight.
float four_bit_absmax(const QuantizedWeight& w, int64_t block);

}  // namespace vlr

#endif  // VLR_KERNELS_QUANT_FOUR_BIT_H_
