/// What the vision tower made of pictures and videos that were seen before, found by content: in
/// memory, and in a folder that outlives the process.
///
/// Two keys lead there. The media key is over the encoded bytes and how they are to be decoded: it
/// finds what a prompt needs (grid, times) and the content key, so that a hit decodes nothing. The
/// content key is over decoded patches: it finds their features, whatever file they came from.
#ifndef VLR_ENGINE_SCHEDULING_VISION_CACHE_H_
#define VLR_ENGINE_SCHEDULING_VISION_CACHE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/runtime/hash.h"
#include "engine/runtime/host_pool.h"
#include "engine/scheduling/vision_cache_folder.h"
#include "vlr/status.h"

namespace vlr {

/// A bounded map that forgets what was not used for longest. One thread at a time.
template <class Value>
class LruMap {
 public:
  Value* find(const Hash128& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, it->second);
    return &it->second->second;
  }
  void put(const Hash128& key, Value value) {
    erase(key);
    entries_.emplace_front(key, std::move(value));
    by_key_[key] = entries_.begin();
  }
  void erase(const Hash128& key) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) return;
    entries_.erase(it->second);
    by_key_.erase(it);
  }
  /// The least recently used one for which `may_go(value)`, given up; false if there is none.
  template <class MayGo>
  bool evict(const MayGo& may_go) {
    for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
      if (!may_go(it->second)) continue;
      by_key_.erase(it->first);
      entries_.erase(std::next(it).base());
      return true;
    }
    return false;
  }
  size_t size() const { return entries_.size(); }

 private:
  std::list<std::pair<Hash128, Value>> entries_;  // most recently used first
  std::map<Hash128, typename decltype(entries_)::iterator> by_key_;
};

/// Features of one picture or video in host memory, in pieces: those of all levels, one level after
/// the other, [rows, C] each.
struct CachedFeatures {
  int64_t bytes = 0;  ///< of all pieces
  std::vector<std::span<std::byte>> pieces;
  std::shared_ptr<const void> owner;  ///< of the memory
};

/// Any thread may look things up while one adds.
class VisionCache {
 public:
  /// `memory_bytes` of host memory, taken as it is needed; a folder, or none. The device must
  /// outlive the cache and what it gave out.
  VisionCache(OpenDevice& device, int64_t memory_bytes, std::unique_ptr<VisionCacheFolder> folder);

  std::optional<MediaRecord> find_media(const Hash128& media);
  void add_media(const Hash128& media, const MediaRecord& record);

  /// Features that are there, and stay as long as the result does; null: they are not. A folder's
  /// are read and checked.
  std::shared_ptr<const CachedFeatures> find(const Hash128& content, int64_t bytes);

  /// Room in memory for the features of a content, for the caller to fill in the order of the
  /// device's stream; null: there is none.
  std::shared_ptr<const CachedFeatures> add(const Hash128& content, int64_t bytes);

  /// Takes back an add() that could not be filled.
  void forget(const Hash128& content);

  /// Null: no folder.
  VisionCacheFolder* folder() { return folder_.get(); }
  bool in_memory(const Hash128& content);

 private:
  void put_media(const Hash128& media, const MediaRecord& record);

  std::mutex mutex_;
  std::shared_ptr<PagePool> pages_;
  LruMap<std::shared_ptr<const CachedFeatures>> features_;
  LruMap<MediaRecord> media_;
  std::unique_ptr<VisionCacheFolder> folder_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_VISION_CACHE_H_
