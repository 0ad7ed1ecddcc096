/// Hands out pieces of a workspace, in an order that sizing and use share.
#ifndef VLR_KERNELS_CORE_SCRATCH_H_
#define VLR_KERNELS_CORE_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/core/integer.h"
#include "vlr/status.h"

namespace vlr {

/// Every piece starts at a multiple of 64 bytes. Made without memory it only counts (`take` returns
/// null): one function that lays out the pieces serves both Impl::workspace and the implementation.
class Scratch {
 public:
  static constexpr int64_t kAlign = 64;

  Scratch() = default;
  explicit Scratch(std::span<std::byte> memory) : memory_(memory) {}

  /// `count` elements of T; null when that is more than what is left.
  template <class T>
  T* take(int64_t count) {
    const int64_t begin = used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(T)), kAlign);
    return fits() ? reinterpret_cast<T*>(memory_.data() + begin) : nullptr;
  }

  int64_t used() const { return used_; }
  bool fits() const { return used_ <= static_cast<int64_t>(memory_.size()); }
  /// kInternal, in the name of `who`, when what was taken is more than there is.
  Status status(std::string_view who) const;

 private:
  std::span<std::byte> memory_;
  int64_t used_ = 0;
};

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_SCRATCH_H_
