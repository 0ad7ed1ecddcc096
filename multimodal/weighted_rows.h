/// The inner loop of Pillow's resize: weighted sums of rows of bytes, vectorised.
#ifndef VLR_MULTIMODAL_WEIGHTED_ROWS_H_
#define VLR_MULTIMODAL_WEIGHTED_ROWS_H_

#include <cstdint>
#include <span>

namespace vlr::media {

/// Weights are fixed point with 22 fractional bits, as in Pillow. Each is split into high * 4096 +
/// low with 16 bits each, two weights side by side, so that one instruction multiplies and adds two
/// rows of bytes; all of it is exact integer arithmetic, the same on every instruction set.
constexpr int kWeightBits = 22;
struct WeightPair {
  int32_t low = 0;  // two int16: bits 0-15 belong to the even row, 16-31 to the odd one
  int32_t high = 0;
};
WeightPair pack_weights(int32_t even, int32_t odd);

/// out[i] = clamp((2^21 + sum_r weight[r] * rows[r * stride + i]) >> 22, 0, 255), i in [0, n).
/// num_rows rows; an odd last row has a pair whose second weight is not looked at.
void weighted_rows(const uint8_t* rows, int64_t stride, int64_t num_rows,
                   std::span<const WeightPair> weights, int64_t n, uint8_t* out);

/// Sixteen rows of n bytes each -> n rows of sixteen bytes each, `out_stride` apart.
void rows_to_columns(const uint8_t* const rows[16], int64_t n, uint8_t* out, int64_t out_stride);
/// The way back: n rows of sixteen bytes, `in_stride` apart -> sixteen rows of n bytes each.
void columns_to_rows(const uint8_t* in, int64_t in_stride, int64_t n, uint8_t* const rows[16]);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_WEIGHTED_ROWS_H_
