/// A weight [N, K] of a linear layer that is stored in 8 or 4 bits a value: what its bytes are.
///
/// What a stored value means, in f32, each operation rounded once:
///   nf4    kNf4Codebook[code] * absmax of its block, rounded to the dtype asked for. A block is 64
///          consecutive values of the flattened weight; its absmax is itself stored in 8 bits:
///          map[absmax code] * scale + offset, scale and offset those of the block's group.
///   fp4    the same with kFp4Codebook
///   int8   code * scale of its row; codes from -128 to 127, of which vlr writes no -128
///   fp8    e4m3 (no infinities, largest 448) * scale of its row
///   mxfp4  e2m1 (largest 6) * scale of its block of 32 values of a row, 2^(scale code - 127)
/// Sources: Dettmers et al. 2023 (QLoRA: NF4, double quantisation), Dettmers et al. 2022
/// (LLM.int8()), Micikevicius et al. 2022 (FP8 formats), OCP Microscaling Formats (MX) 1.0.
#ifndef VLR_KERNELS_QUANT_QUANTIZED_WEIGHT_H_
#define VLR_KERNELS_QUANT_QUANTIZED_WEIGHT_H_

#include <cstdint>
#include <string_view>

#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr {

enum class WeightFormat : uint8_t { kDense, kNf4, kFp4, kInt8, kFp8, kMxfp4 };
std::string_view weight_format_name(WeightFormat f);  ///< "dense", "nf4", ...: formats.h

constexpr int64_t kFourBitBlock = 64;  ///< values of nf4 and fp4 that share an absmax

/// Views; never owns. `rows` and `cols` are N and K, which no tensor has to show: codes of nf4 and
/// fp4 are packed.
struct QuantizedWeight {
  WeightFormat format = WeightFormat::kDense;
  int64_t rows = 0, cols = 0;
  /// nf4, fp4: u8 [N * K / 2], the value with the lower index in the high nibble (N * K is even)
  /// int8: i8 [N, K]         fp8: f8e4m3 [N, K]         all contiguous
  /// mxfp4: u8 [N, K / 2], the value with the lower index in the low nibble (K is even)
  ConstTensor codes = {};
  /// nf4, fp4: u8 [ceil(N * K / 64)], codes of the blocks' absmax        int8, fp8: f32 [N]
  /// mxfp4: u8 [N, ceil(K / 32)]
  ConstTensor scales = {};
  /// nf4, fp4 only. Block b belongs to group b / group_blocks, a power of two; nested is f32 [groups,
  /// 2], of each group the scale and the offset of its blocks' absmax; map is f32 [256].
  ConstTensor nested = {}, map = {};
  int64_t group_blocks = 0;

  bool defined() const { return format != WeightFormat::kDense; }
  int64_t bytes() const;  ///< of codes and everything beside them
  /// kInvalidArgument, in the name of `op`, when a tensor is not as described above.
  Status check(std::string_view op) const;
};

}  // namespace vlr

#endif  // VLR_KERNELS_QUANT_QUANTIZED_WEIGHT_H_
