#include "engine/runtime/host_pool.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "kernels/core/integer.h"

namespace vlr {

struct HostPool::State {
  State(OpenDevice& d, std::string p, int64_t keep)
      : device(d), purpose(std::move(p)), keep_bytes(keep) {}

  std::mutex mutex;
  OpenDevice& device;
  const std::string purpose;
  int64_t keep_bytes;
  int64_t kept_bytes = 0;
  std::multimap<int64_t, Buffer> blocks;  // that nobody uses, by size

  void give(Buffer block) {
    const std::lock_guard lock(mutex);
    if (kept_bytes + block.size() > keep_bytes) return;
    kept_bytes += block.size();
    const int64_t size = block.size();
    blocks.emplace(size, std::move(block));
  }
};

HostPool::HostPool(OpenDevice& device, std::string_view purpose, int64_t keep_bytes)
    : state_(std::make_shared<State>(device, std::string(purpose), keep_bytes)) {}

std::shared_ptr<uint8_t[]> HostPool::take(size_t bytes) {
  constexpr int64_t kStep = int64_t{1} << 20;  // so that blocks fit pictures of about their size
  const int64_t wanted = round_up(static_cast<int64_t>(bytes), kStep);
  Buffer block;
  {
    const std::lock_guard lock(state_->mutex);
    // The smallest that is large enough, unless most of it would lie idle.
    const auto it = state_->blocks.lower_bound(wanted);
    if (it != state_->blocks.end() && it->first <= 2 * wanted) {
      state_->kept_bytes -= it->first;
      block = std::move(it->second);
      state_->blocks.erase(it);
    }
  }
  if (!block.data()) {
    if (!state_->device.activate().ok()) return nullptr;
    block = state_->device.staging(state_->purpose);
    if (!block.reserve(wanted).ok()) return nullptr;
  }
  auto* data = reinterpret_cast<uint8_t*>(block.data());
  auto owned = std::make_shared<Buffer>(std::move(block));
  return {data, [owned, state = state_](uint8_t*) { state->give(std::move(*owned)); }};
}

namespace {
constexpr int64_t kSlabPages = (int64_t{64} << 20) / PagePool::kPageBytes;
}  // namespace

int64_t PagePool::slab_bytes(int64_t pages, int64_t most_bytes) {
  return std::min(round_up(pages, kSlabPages), most_bytes / kPageBytes) * kPageBytes;
}

struct PagePool::State {
  State(OpenDevice& d, std::string p, int64_t bytes)
      : device(d), purpose(std::move(p)), capacity(bytes / kPageBytes) {}

  std::mutex mutex;
  OpenDevice& device;
  const std::string purpose;
  int64_t capacity;   // pages
  int64_t taken = 0;  // pages of slabs
  std::vector<Buffer> slabs;
  std::vector<std::byte*> free;

  // One more slab; false if the system has no more. Not ahead of time on another thread: pinning
  // holds up what others launch.
  bool grow() {
    const int64_t pages = std::min(kSlabPages, capacity - taken);
    Buffer slab = device.staging(purpose);
    if (pages == 0 || !device.activate().ok() || !slab.reserve(pages * kPageBytes).ok()) {
      capacity = taken;
      return false;
    }
    for (int64_t p = pages; p-- > 0;) free.push_back(slab.data() + p * kPageBytes);
    taken += pages;
    slabs.push_back(std::move(slab));
    return true;
  }
};

PagePool::PagePool(OpenDevice& device, std::string_view purpose, int64_t bytes)
    : state_(std::make_unique<State>(device, std::string(purpose), bytes)) {}
PagePool::~PagePool() = default;

int64_t PagePool::num_pages() const {
  const std::lock_guard lock(state_->mutex);
  return state_->capacity;
}

int64_t PagePool::free_pages() const {
  const std::lock_guard lock(state_->mutex);
  return std::ssize(state_->free) + state_->capacity - state_->taken;
}

std::vector<std::byte*> PagePool::take(int64_t count) {
  const std::lock_guard lock(state_->mutex);
  State& s = *state_;
  while (std::ssize(s.free) < count && s.grow()) {
  }
  std::vector<std::byte*> out;
  while (std::ssize(out) < count && !s.free.empty()) {
    out.push_back(s.free.back());
    s.free.pop_back();
  }
  return out;
}

void PagePool::give(const std::vector<std::byte*>& pages) {
  const std::lock_guard lock(state_->mutex);
  state_->free.insert(state_->free.end(), pages.begin(), pages.end());
}

}  // namespace vlr
