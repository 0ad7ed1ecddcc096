#include "engine/passes/prefix_memory.h"

#include <iterator>
#include <utility>

#include "engine/runtime/purposes.h"

namespace vlr {

PrefixMemory::PrefixMemory(const TextConfig& config, DType dtype, std::set<int64_t> host_layers,
                           OpenDevice& device)
    : config_(config),
      dtype_(dtype),
      device_(device.kind()),
      host_layers_(std::move(host_layers)),
      memory_(device.memory(purposes::kPrefixes)),
      host_memory_(device.host_memory(purposes::kPrefixes)) {}

Status PrefixMemory::reserve(int64_t rows) {
  if (rows <= capacity_) return {};
  capacity_ = 0;
  VLR_RETURN_IF_ERROR(memory_.reserve(rows * row_bytes()));
  VLR_RETURN_IF_ERROR(host_memory_.reserve(rows * host_row_bytes()));
  capacity_ = rows;
  return {};
}

int64_t PrefixMemory::row_bytes() const {
  return (config_.num_hidden_layers - std::ssize(host_layers_)) * width() * dtype_bytes(dtype_);
}

int64_t PrefixMemory::host_row_bytes() const {
  return std::ssize(host_layers_) * width() * dtype_bytes(DType::kF32);
}

Tensor PrefixMemory::rows(int64_t layer, int64_t first, int64_t count) const {
  const bool on_host = host_layers_.contains(layer);
  // Layers of one place lie one after the other.
  const int64_t hosts = std::distance(host_layers_.begin(), host_layers_.lower_bound(layer));
  const int64_t index = on_host ? hosts : layer - hosts;
  const DType dtype = on_host ? DType::kF32 : dtype_;
  std::byte* data = (on_host ? host_memory_ : memory_).data();
  if (data) data += (index * capacity_ + first) * width() * dtype_bytes(dtype);
  return Tensor(data, dtype, {count, width()}, on_host ? Device::kCpu : device_);
}

}  // namespace vlr
