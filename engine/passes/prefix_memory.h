/// Keys and values of prefixes, of every layer: [layers, capacity, 2 * Hkv * D] where the layers are
/// computed.
#ifndef VLR_ENGINE_PASSES_PREFIX_MEMORY_H_
#define VLR_ENGINE_PASSES_PREFIX_MEMORY_H_

#include <cstdint>
#include <set>

#include "engine/runtime/device.h"
#include "kernels/core/tensor.h"
#include "model/config.h"
#include "vlr/status.h"

namespace vlr {

class PrefixMemory {
 public:
  /// config and device must outlive it. `host_layers` are computed on the CPU, in f32.
  PrefixMemory(const TextConfig& config, DType dtype, std::set<int64_t> host_layers,
               OpenDevice& device);

  /// Room for `rows` tokens; what was there is lost when it has to grow.
  Status reserve(int64_t rows);
  int64_t capacity() const { return capacity_; }
  int64_t row_bytes() const;       ///< of all layers of the device together
  int64_t host_row_bytes() const;  ///< of the host's
  /// Rows [first, first + count) of a layer.
  Tensor rows(int64_t layer, int64_t first, int64_t count) const;
  const std::byte* data() const { return memory_.data(); }  ///< of the device's

 private:
  int64_t width() const { return 2 * config_.num_key_value_heads * config_.head_dim; }

  const TextConfig& config_;
  const DType dtype_;
  const Device device_;
  const std::set<int64_t> host_layers_;
  Buffer memory_, host_memory_;
  int64_t capacity_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_PREFIX_MEMORY_H_
