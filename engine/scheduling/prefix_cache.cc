#include "engine/scheduling/prefix_cache.h"

#include <algorithm>

namespace vlr {

void PrefixCache::reset(int64_t capacity) {
  blocks_.clear();
  entries_.clear();
  capacity_ = capacity;
}

std::optional<PrefixCache::Entry> PrefixCache::find(std::string_view key) {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return {};
  blocks_.splice(blocks_.begin(), blocks_, it->second.block);
  it->second.block->pinned = true;
  return it->second.entry;
}

/// The lowest free range of that many rows.
std::optional<int64_t> PrefixCache::gap(int64_t rows) const {
  std::vector<std::pair<int64_t, int64_t>> taken;
  for (const Block& b : blocks_) taken.emplace_back(b.row, b.row + b.rows);
  std::sort(taken.begin(), taken.end());
  int64_t row = 0;
  for (const auto& [begin, end] : taken) {
    if (row + rows <= begin) return row;
    row = end;
  }
  if (row + rows <= capacity_) return row;
  return {};
}

std::optional<int64_t> PrefixCache::add(const std::vector<Prefix>& prefixes) {
  Block block{.row = 0, .rows = 0, .pinned = true, .keys = {}};
  for (const Prefix& p : prefixes) {
    block.rows += p.tokens;
    block.keys.push_back(p.key);
  }
  std::optional<int64_t> row = gap(block.rows);
  while (!row) {
    const auto victim =
        std::find_if(blocks_.rbegin(), blocks_.rend(), [](const Block& b) { return !b.pinned; });
    if (victim == blocks_.rend()) return {};
    erase(std::prev(victim.base()));
    row = gap(block.rows);
  }
  block.row = *row;
  blocks_.push_front(std::move(block));
  int64_t at = *row;
  for (const Prefix& p : prefixes) {
    entries_[p.key] = {.entry = {.row = at, .tokens = p.tokens}, .block = blocks_.begin()};
    at += p.tokens;
  }
  return row;
}

void PrefixCache::erase(std::list<Block>::iterator block) {
  for (const std::string& key : block->keys) entries_.erase(key);
  blocks_.erase(block);
}

void PrefixCache::unpin_all() {
  for (Block& b : blocks_) b.pinned = false;
}

int64_t PrefixCache::rows_used() const {
  int64_t rows = 0;
  for (const Block& b : blocks_) rows += b.rows;
  return rows;
}

}  // namespace vlr
