/// Quantised weights as a checkpoint has them (model/stored_weight.h): read, checked, made and named
/// for writing.
#ifndef VLR_ENGINE_WEIGHTS_QUANTIZED_TENSORS_H_
#define VLR_ENGINE_WEIGHTS_QUANTIZED_TENSORS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/quant/formats.h"
#include "model/stored_weight.h"
#include "vlr/status.h"

namespace vlr {

/// A quantised weight on the host, as files have it (docs/formats.md). Blocks of nf4 and fp4 count
/// from its first value.
struct QuantizedTensor {
  WeightFormat format = WeightFormat::kDense;
  int64_t rows = 0, cols = 0;
  std::vector<std::byte> codes;
  std::vector<uint8_t> byte_scales;  ///< of blocks, where the format has them in 8 bits
  std::vector<float> scales;  ///< int8, fp8: of rows; nf4, fp4: of every 256 blocks, or of each
  float scale_divisor = 1;    ///< of scales: 127 where files have the absmax of int8's rows
  bool nested_scales = true;  ///< nf4, fp4: scales of blocks are quantised themselves
  std::vector<float> map;     ///< nf4, fp4: [256]
  float offset = 0;           ///< nf4, fp4
  std::vector<float> fingerprint;  ///< [rows]; empty: unknown
};

/// `dense` is [N, K] f32 | bf16 | f16, contiguous. kInvalidArgument names a row with a NaN or an
/// infinity, which codes would hide.
Result<QuantizedTensor> quantize_weight(const ConstTensor& dense, WeightFormat format,
                                        ThreadPool& threads);

/// Rows of a stored quantised weight. kDataLoss, with the tensor's name, when its bytes do not have
/// its checksum, its codebook is not its format's, a scale is not finite or out of range, or a code is no
/// number: see docs/quantisation.md. kInvalidArgument for a dense one.
Result<QuantizedTensor> read_quantized(const StoredTensors& tensors, std::string_view name,
                                       ThreadPool& threads);

/// One after the other, as a model reads them (kernels/quant/formats.h): the bytes of the codes and
/// of each of FormatInfo::sidecars.
struct JoinedWeight {
  WeightFormat format = WeightFormat::kDense;
  int64_t rows = 0, cols = 0;
  std::vector<std::byte> codes;
  std::array<std::vector<std::byte>, kMaxSidecars> beside;
  bool nested_scales = true;       ///< of all parts
  std::vector<float> fingerprint;  ///< [rows]; empty unless all parts have one
};
Result<JoinedWeight> join(std::vector<QuantizedTensor> parts);

/// The tensors of a weight to be written, with their bytes.
struct WrittenTensor {
  NamedShape shape;
  std::vector<std::byte> bytes;
};
/// `original`: the dtype that the weight had.
std::vector<WrittenTensor> tensors_to_write(std::string_view name, const QuantizedTensor& weight,
                                            DType original);

/// 64 bits of a tensor's bytes, as checkpoints keep them.
uint64_t checksum_of(std::span<const std::byte> bytes);
/// Tensors that are not quantised against their checksums, all of them read. kDataLoss names one
/// that differs, or is not there.
Status check_dense(const StoredTensors& tensors, const std::map<std::string, uint64_t>& checksums,
                   ThreadPool& threads);

/// +1 or -1 for every input channel: what fingerprints multiply weights with.
float probe_sign(int64_t k);

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_QUANTIZED_TENSORS_H_
