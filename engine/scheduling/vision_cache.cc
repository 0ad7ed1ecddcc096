#include "engine/scheduling/vision_cache.h"

#include <algorithm>
#include <utility>

#include "engine/runtime/purposes.h"

namespace vlr {
namespace {

constexpr size_t kMaxMedia = 1 << 16;  // records in memory, a few hundred bytes each

/// Pages that go back when nobody reads them any more.
struct Pages {
  std::shared_ptr<PagePool> pool;
  std::vector<std::byte*> pages;
  ~Pages() { pool->give(pages); }
};

}  // namespace

VisionCache::VisionCache(OpenDevice& device, int64_t memory_bytes,
                         std::unique_ptr<VisionCacheFolder> folder)
    : pages_(std::make_shared<PagePool>(device, purposes::kVisionCache, memory_bytes)),
      folder_(std::move(folder)) {}

std::optional<MediaRecord> VisionCache::find_media(const Hash128& media) {
  {
    const std::lock_guard lock(mutex_);
    if (const MediaRecord* found = media_.find(media)) return *found;
  }
  if (!folder_) return {};
  std::optional<MediaRecord> record = folder_->read_media(media);
  if (record) put_media(media, *record);
  return record;
}

void VisionCache::put_media(const Hash128& media, const MediaRecord& record) {
  const std::lock_guard lock(mutex_);
  media_.put(media, record);
  while (media_.size() > kMaxMedia) media_.evict([](const MediaRecord&) { return true; });
}

void VisionCache::add_media(const Hash128& media, const MediaRecord& record) {
  put_media(media, record);
  if (folder_) folder_->write_media(media, record);
}

bool VisionCache::in_memory(const Hash128& content) {
  const std::lock_guard lock(mutex_);
  return features_.find(content) != nullptr;
}

void VisionCache::forget(const Hash128& content) {
  const std::lock_guard lock(mutex_);
  features_.erase(content);
}

std::shared_ptr<const CachedFeatures> VisionCache::find(const Hash128& content, int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto* found = features_.find(content))
      return (*found)->bytes == bytes ? *found : nullptr;
  }
  if (!folder_) return nullptr;
  std::vector<std::byte> data = folder_->read_features(content, bytes);
  if (data.empty()) return nullptr;
  auto owned = std::make_shared<std::vector<std::byte>>(std::move(data));
  return std::make_shared<CachedFeatures>(
      CachedFeatures{.bytes = bytes, .pieces = {std::span(*owned)}, .owner = owned});
}

std::shared_ptr<const CachedFeatures> VisionCache::add(const Hash128& content, int64_t bytes) {
  const int64_t count = (bytes + PagePool::kPageBytes - 1) / PagePool::kPageBytes;
  const std::lock_guard lock(mutex_);
  if (count > pages_->num_pages()) return nullptr;
  // What somebody reads would not become free.
  const auto unused = [](const auto& entry) { return entry.use_count() == 1; };
  while (pages_->free_pages() < count && features_.evict(unused)) {
  }
  auto pages = std::make_shared<Pages>(Pages{pages_, {}});
  if (pages_->free_pages() >= count) pages->pages = pages_->take(count);
  if (std::ssize(pages->pages) < count) return nullptr;
  CachedFeatures features{.bytes = bytes, .pieces = {}, .owner = pages};
  for (std::byte* page : pages->pages) {
    const int64_t size = std::min(bytes, PagePool::kPageBytes);
    features.pieces.emplace_back(page, static_cast<size_t>(size));
    bytes -= size;
  }
  auto shared = std::make_shared<const CachedFeatures>(std::move(features));
  features_.put(content, shared);
  return shared;
}

}  // namespace vlr
