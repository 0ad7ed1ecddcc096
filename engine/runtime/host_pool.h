/// Host memory that is used again and again: pinned for a GPU, where taking it anew is slow.
#ifndef VLR_ENGINE_RUNTIME_HOST_POOL_H_
#define VLR_ENGINE_RUNTIME_HOST_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"

namespace vlr {

/// Blocks of any size. Any thread may take and drop them; they may outlive the pool, but not the
/// device.
class HostPool {
 public:
  /// Keeps at most `keep_bytes` of blocks that nobody uses.
  HostPool(OpenDevice& device, std::string_view purpose, int64_t keep_bytes);

  /// At least `bytes` bytes, not initialised; null if there are none. Whoever drops the last
  /// reference gives them back.
  std::shared_ptr<uint8_t[]> take(size_t bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// A bounded number of pages of one size. Any thread may take and give.
class PagePool {
 public:
  static constexpr int64_t kPageBytes = int64_t{256} << 10;
  /// What a pool of at most `most_bytes` takes from the system for so many pages.
  static int64_t slab_bytes(int64_t pages, int64_t most_bytes);

  /// Memory is taken from the system in slabs, as it is needed, up to `bytes`.
  PagePool(OpenDevice& device, std::string_view purpose, int64_t bytes);
  ~PagePool();

  int64_t num_pages() const;   ///< that there are when all memory was taken
  int64_t free_pages() const;  ///< of those
  /// `count` pages; fewer or none when there are no more.
  std::vector<std::byte*> take(int64_t count);
  void give(const std::vector<std::byte*>& pages);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_HOST_POOL_H_
