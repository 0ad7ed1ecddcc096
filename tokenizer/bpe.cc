#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace vlr {
namespace {

// Up to this, a scan over all pairs beats a heap.
constexpr size_t kShortPiece = 128;

// Larger than any rank. Shifted by 8 bits it still fits, see encode_short.
constexpr int32_t kNoRank = kMaxMerges;

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const Merge> merges)
    : byte_ids_(byte_ids), table_(std::bit_ceil(merges.size() * 2 + 2), kFree) {
  merged_.reserve(merges.size());
  for (const Merge& m : merges) {
    const uint64_t pair =
        (uint64_t{static_cast<uint32_t>(m.left)} << kIdBits) | static_cast<uint32_t>(m.right);
    table_[slot_of(pair)] = (pair << kRankBits) | merged_.size();
    merged_.push_back(m.merged);
  }
}

/// The slot of the pair, or the free one where it would be.
size_t Bpe::slot_of(uint64_t pair) const {
  uint64_t hash = pair * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  const size_t mask = table_.size() - 1;
  size_t slot = hash & mask;
  while (table_[slot] != kFree && table_[slot] >> kRankBits != pair) slot = (slot + 1) & mask;
  return slot;
}

int32_t Bpe::rank_of(int32_t left, int32_t right) const {
  const uint64_t pair =
      (uint64_t{static_cast<uint32_t>(left)} << kIdBits) | static_cast<uint32_t>(right);
  const uint64_t entry = table_[slot_of(pair)];
  return entry == kFree ? kNoRank : static_cast<int32_t>(entry & ((1u << kRankBits) - 1));
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (piece.size() <= kShortPiece) {
    encode_short(piece, ids);
  } else {
    encode_long(piece, scratch, ids);
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<int32_t>& ids) const {
  // Symbols stay where their first byte is. key[i] is rank << 8 | i for the pair that starts at i,
  // so that the smallest is the leftmost of the lowest rank.
  std::array<int32_t, kShortPiece> id, key;
  std::array<uint8_t, kShortPiece + 1> previous, next;
  constexpr int32_t kNoKey = kNoRank << 8;
  const size_t n = piece.size();
  const auto look_up = [&](size_t i) {
    key[i] = (rank_of(id[i], id[next[i]]) << 8) | static_cast<int32_t>(i);
  };
  for (size_t i = 0; i < n; ++i) {
    id[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
    previous[i] = static_cast<uint8_t>(i - 1);
    next[i] = static_cast<uint8_t>(i + 1);
  }
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  key[n - 1] = kNoKey;
  while (true) {
    int32_t best = kNoKey;
    for (size_t i = 0; i < n; ++i) best = std::min(best, key[i]);
    if (best >= kNoKey) break;
    const size_t left = best & 0xFF, right = next[left];
    id[left] = merged_[static_cast<size_t>(best >> 8)];
    key[right] = kNoKey;
    next[left] = next[right];
    previous[next[left]] = static_cast<uint8_t>(left);
    if (next[left] < n) {
      look_up(left);
    } else {
      key[left] = kNoKey;
    }
    if (left > 0) look_up(previous[left]);
  }
  for (size_t i = 0; i < n; i = next[i]) ids.push_back(id[i]);
}

void Bpe::encode_long(std::string_view piece, BpeScratch& scratch,
                      std::vector<int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto n = static_cast<int32_t>(piece.size());
  symbols.resize(piece.size());
  queue.clear();
  const auto at = [&](int32_t i) -> BpeScratch::Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto key = [&](int32_t i) {
    return (uint64_t{static_cast<uint32_t>(at(i).rank)} << 32) | static_cast<uint32_t>(i);
  };
  const auto look_up = [&](int32_t i) {
    at(i).rank = rank_of(at(i).id, at(at(i).next).id);
    if (at(i).rank == kNoRank) return false;
    queue.push_back(key(i));
    return true;
  };

  for (int32_t i = 0; i < n; ++i) {
    at(i) = {byte_ids_[static_cast<uint8_t>(piece[static_cast<size_t>(i)])], i - 1, i + 1, kNoRank};
  }
  for (int32_t i = 0; i + 1 < n; ++i) look_up(i);
  constexpr std::greater<> kMinFirst;
  std::make_heap(queue.begin(), queue.end(), kMinFirst);
  while (!queue.empty()) {
    const uint64_t best = queue.front();
    std::pop_heap(queue.begin(), queue.end(), kMinFirst);
    queue.pop_back();
    const auto i = static_cast<int32_t>(best & 0xFFFFFFFFu);
    if (key(i) != best) continue;  // the pair has changed since it was queued
    auto& left = at(i);
    auto& right = at(left.next);
    left.id = merged_[static_cast<size_t>(left.rank)];
    left.next = right.next;
    left.rank = right.rank = kNoRank;
    if (left.next < n) {
      at(left.next).previous = i;
      if (look_up(i)) std::push_heap(queue.begin(), queue.end(), kMinFirst);
    }
    if (left.previous >= 0 && look_up(left.previous)) {
      std::push_heap(queue.begin(), queue.end(), kMinFirst);
    }
  }
  for (int32_t i = 0; i < n; i = at(i).next) ids.push_back(at(i).id);
}

}  // namespace vlr
