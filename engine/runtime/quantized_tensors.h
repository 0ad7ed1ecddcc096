/// Quantised weights as a checkpoint has them: which tensors a weight [N, K] is stored as, read,
/// checked, made and named for writing.
///
/// For a module `m`:
///   nf4   m.weight u8 [N * K / 2, 1]; m.weight.absmax u8 [blocks]; m.weight.quant_map f32 [16];
///         m.weight.nested_absmax f32 [ceil(blocks / 256)]; m.weight.nested_quant_map f32 [256];
///         m.weight.quant_state.bitsandbytes__nf4 u8, a JSON text with shape, sizes and offset
///   int8  m.weight i8 [N, K]; m.SCB f32 [N]: absmax, 127 times the scale; m.weight_format u8, 0
///   fp8   m.weight f8e4m3 [N, K]; m.weight_scale f32 [N, 1]
/// nf4 and int8 are bitsandbytes' own layout, fp8 is compressed-tensors'. vlr adds:
///   m.weight_fingerprint f32 [N]: the weight as it was before it was quantised, times probe_sign()
///   m.weight_checksum u8 [8]: of the tensors above
/// Source: bitsandbytes 0.50 (functional.py, QuantState.as_dict; nn/modules.py, Linear8bitLt).
#ifndef VLR_ENGINE_RUNTIME_QUANTIZED_TENSORS_H_
#define VLR_ENGINE_RUNTIME_QUANTIZED_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/safetensors.h"
#include "kernels/core/thread_pool.h"
#include "kernels/quant/quantized_weight.h"
#include "vlr/status.h"

namespace vlr {

/// What a stored weight is, whatever it is stored as.
struct StoredWeight {
  WeightFormat format = WeightFormat::kDense;
  std::vector<int64_t> shape;  ///< [N, K] where it is quantised
};

/// The tensor `name`, or the quantised weight of that name. kInvalidArgument says what a quantised
/// weight lacks, and which of its features vlr does not read.
Result<StoredWeight> stored_weight(const StoredTensors& tensors, std::string_view name);

/// Whether a tensor stands beside a quantised weight and is read with it.
bool belongs_to_quantized(const StoredTensors& tensors, std::string_view name);

/// A quantised weight on the host. Blocks of nf4 count from its first value.
struct QuantizedTensor {
  WeightFormat format = WeightFormat::kDense;
  int64_t rows = 0, cols = 0;
  std::vector<std::byte> codes;
  std::vector<uint8_t> absmax;     ///< nf4
  std::vector<float> scales;       ///< int8: absmax, fp8: scale of rows; nf4: of every 256 blocks
  std::vector<float> map;          ///< nf4: [256]
  float offset = 0;                ///< nf4
  std::vector<float> fingerprint;  ///< [rows]; empty: unknown
};

/// `dense` is [N, K] f32 | bf16 | f16, contiguous. kInvalidArgument names a row with a NaN or an
/// infinity, which codes would hide.
Result<QuantizedTensor> quantize_weight(const ConstTensor& dense, WeightFormat format,
                                        ThreadPool& threads);

/// Rows of a stored quantised weight. kDataLoss, with the tensor's name, when its bytes do not have
/// its checksum, its codebook is not NF4's, a scale is not finite or out of range, or its codes are
/// not what a quantiser leaves: see docs/quantisation.md.
Result<QuantizedTensor> read_quantized(const StoredTensors& tensors, std::string_view name,
                                       ThreadPool& threads);

/// One after the other, as a model reads them: nf4 with a scale and an offset for every group of
/// blocks, int8 with plain scales.
struct JoinedWeight {
  WeightFormat format = WeightFormat::kDense;
  int64_t rows = 0, cols = 0;
  std::vector<std::byte> codes, scales;
  std::vector<float> nested, map;
  std::vector<float> fingerprint;  ///< [rows]; empty unless all parts have one
};
Result<JoinedWeight> join(std::vector<QuantizedTensor> parts);

/// Blocks that share a scale and an offset, when parts of so many values are joined.
int64_t nf4_group_blocks(std::span<const int64_t> part_values);

/// The tensors of a weight to be written, with their bytes.
struct WrittenTensor {
  NamedShape shape;
  std::vector<std::byte> bytes;
};
/// `original`: the dtype that the weight had.
std::vector<WrittenTensor> tensors_to_write(std::string_view name, const QuantizedTensor& weight,
                                            DType original);

/// +1 or -1 for every input channel: what fingerprints multiply weights with.
float probe_sign(int64_t k);

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_QUANTIZED_TENSORS_H_
