/// Which rows of the prefix memory hold whose keys and values: blocks of rows, the least recently
/// used ones given up first.
#ifndef VLR_ENGINE_SCHEDULING_PREFIX_CACHE_H_
#define VLR_ENGINE_SCHEDULING_PREFIX_CACHE_H_

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vlr {

/// Rows are those of every layer alike. A block is what one prefix pass computed together, and is
/// given up as a whole.
class PrefixCache {
 public:
  struct Entry {
    int64_t row = 0, tokens = 0;
  };

  /// Forgets everything; rows [0, capacity) are there.
  void reset(int64_t capacity);
  int64_t capacity() const { return capacity_; }

  /// A prefix that is there; marks its block as just used and keeps it until unpin_all().
  std::optional<Entry> find(std::string_view key);

  /// Rows for prefixes of these lengths, one after the other, kept until unpin_all(); other blocks
  /// may have to go. Nothing if pinned blocks leave no room.
  struct Prefix {
    std::string key;
    int64_t tokens = 0;
  };
  std::optional<int64_t> add(const std::vector<Prefix>& prefixes);

  void unpin_all();
  int64_t rows_used() const;

 private:
  struct Block {
    int64_t row = 0, rows = 0;
    bool pinned = false;
    std::vector<std::string> keys;
  };
  std::optional<int64_t> gap(int64_t rows) const;
  void erase(std::list<Block>::iterator block);

  int64_t capacity_ = 0;
  std::list<Block> blocks_;  // most recently used first
  struct Found {
    Entry entry;
    std::list<Block>::iterator block;
  };
  std::map<std::string, Found, std::less<>> entries_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_PREFIX_CACHE_H_
