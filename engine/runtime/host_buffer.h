/// Aligned host memory that only grows: arenas and caches of the CPU backend.
#ifndef VLR_ENGINE_RUNTIME_HOST_BUFFER_H_
#define VLR_ENGINE_RUNTIME_HOST_BUFFER_H_

#include <fmt/format.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "engine/runtime/arena.h"
#include "vlr/status.h"

namespace vlr {

/// Owns its memory; move-only.
class HostBuffer {
 public:
  /// At least `bytes` from now on; contents are lost when it has to grow. kOutOfMemory says how
  /// many.
  Status reserve(int64_t bytes) {
    if (bytes <= size_) return {};
    data_.reset();
    size_ = 0;
    const int64_t rounded = (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
    data_.reset(
        static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, static_cast<size_t>(rounded))));
    if (!data_)
      return {Code::kOutOfMemory, fmt::format("host memory: {} bytes could not be had", rounded)};
    size_ = rounded;
    return {};
  }
  std::span<std::byte> bytes() { return {data_.get(), static_cast<size_t>(size_)}; }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t size_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_HOST_BUFFER_H_
