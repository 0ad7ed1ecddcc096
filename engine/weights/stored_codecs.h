/// How checkpoints store the formats of weights: a row a format. What the bytes mean in memory is in
/// kernels/quant/formats.h, what the tensors are called in model/stored_weight.h.
#ifndef VLR_ENGINE_WEIGHTS_STORED_CODECS_H_
#define VLR_ENGINE_WEIGHTS_STORED_CODECS_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/weights/quantized_tensors.h"
#include "kernels/core/thread_pool.h"
#include "vlr/status.h"

namespace vlr {

struct StoredCodec {
  WeightFormat format;
  /// What is beside the codes; format, shape and codes of `t` are set.
  Status (*read)(const StoredTensors& tensors, std::string_view name, QuantizedTensor& t);
  /// kDataLoss: scales or codes are no numbers that any quantiser leaves. Which codes a row or a
  /// block has is the quantiser's business.
  Status (*verify)(const StoredTensors& tensors, std::string_view name, const QuantizedTensor& t,
                   ThreadPool& threads);
  /// Codes and what is beside them, of a dense weight whose rows have these largest values.
  void (*quantize)(const ConstTensor& dense, std::span<const float> absmax, QuantizedTensor& t,
                   ThreadPool& threads);
  /// Appends what is beside the codes of one more part, of which `parts` is the list of values.
  Status (*join)(JoinedWeight& out, QuantizedTensor& part, size_t index,
                 std::span<const int64_t> parts);
  /// Codes and what is beside them, as files have it.
  void (*write)(std::string_view name, const QuantizedTensor& t, DType original,
                std::vector<WrittenTensor>& out);
};
/// Of a quantised format, which has to have one.
const StoredCodec& stored_codec(WeightFormat format);

// What codecs share.
Status broken(std::string_view name, std::string message);  ///< kDataLoss
/// A tensor beside a weight, with the dtype and the number of values that it has to have.
Result<std::span<const std::byte>> read_sidecar(const StoredTensors& tensors,
                                                const std::string& name, DType dtype,
                                                int64_t numel);
Result<std::vector<float>> read_floats(const StoredTensors& tensors, const std::string& name,
                                       int64_t numel);
/// Scales of rows as f32, in any of the dtypes that writers choose; a single one is that of all rows.
Result<std::vector<float>> read_row_scales(const StoredTensors& tensors, const std::string& name,
                                           int64_t rows);
/// Finite, not negative, of moderate size.
Status check_scales(std::string_view name, const std::vector<float>& scales);
void append_tensor(std::vector<WrittenTensor>& out, std::string name, DType dtype,
                   std::vector<int64_t> shape, std::span<const std::byte> bytes);
template <class T>
void append_bytes(std::vector<std::byte>& to, const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_STORED_CODECS_H_
