/// Memory for a graph's run in which what is read before it is written shows in the results.
#ifndef VLR_TESTS_SUPPORT_POISONED_ARENA_H_
#define VLR_TESTS_SUPPORT_POISONED_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>

#include "engine/runtime/arena.h"

namespace vlr::testing {

class PoisonedArena {
 public:
  /// 0xff everywhere is NaN in every floating-point dtype.
  explicit PoisonedArena(int64_t bytes, int fill = 0xff)
      : size_(static_cast<size_t>(bytes)), memory_(new (kAlign) std::byte[size_]) {
    std::memset(memory_.get(), fill, size_);
  }
  std::span<std::byte> span() { return {memory_.get(), size_}; }

 private:
  static constexpr std::align_val_t kAlign{kArenaAlignment};
  struct Delete {
    void operator()(std::byte* p) const { ::operator delete[](p, kAlign); }
  };
  size_t size_;
  std::unique_ptr<std::byte, Delete> memory_;
};

}  // namespace vlr::testing

#endif  // VLR_TESTS_SUPPORT_POISONED_ARENA_H_
