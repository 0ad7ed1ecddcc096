#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace vlr {
namespace {

// Below this a scan over all pairs beats a heap; encode_short has two such arrays on the stack.
constexpr size_t kShortPiece = 64;

uint64_t pair_key(int32_t left, int32_t right) {
  return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const Merge> merges)
    : byte_ids_(byte_ids), table_(std::bit_ceil(2 * merges.size() + 2)) {
  uint32_t rank = 0;
  for (const Merge& m : merges) {
    const uint64_t pair = pair_key(m.left, m.right);
    table_[slot_of(pair)] = {.pair = pair, .rank = rank++, .merged = m.merged};
  }
}

/// The slot of the pair, or the free one where it would be.
size_t Bpe::slot_of(uint64_t pair) const {
  uint64_t hash = pair * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  const size_t mask = table_.size() - 1;
  size_t slot = hash & mask;
  while (table_[slot].pair != pair && table_[slot].pair != UINT64_MAX) slot = (slot + 1) & mask;
  return slot;
}

const Bpe::Entry& Bpe::find(int32_t left, int32_t right) const {
  return table_[slot_of(pair_key(left, right))];
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (piece.size() <= kShortPiece) {
    encode_short(piece, ids);
  } else {
    encode_long(piece, scratch, ids);
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<int32_t>& ids) const {
  std::array<int32_t, kShortPiece> id;
  std::array<const Entry*, kShortPiece> pair;  // pair[i]: (id[i], id[i + 1])
  std::array<uint32_t, kShortPiece> rank;      // pair[i]->rank
  size_t n = piece.size();
  for (size_t i = 0; i < n; ++i) id[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  const auto look_up = [&](size_t i) {
    pair[i] = &find(id[i], id[i + 1]);
    rank[i] = pair[i]->rank;
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    const auto* best = std::min_element(rank.data(), rank.data() + n - 1);  // the first of equals
    if (*best == kNoRank) break;
    const auto i = static_cast<size_t>(best - rank.data());
    id[i] = pair[i]->merged;
    std::copy(id.begin() + i + 2, id.begin() + n, id.begin() + i + 1);
    if (i + 2 < n) {
      std::copy(pair.begin() + i + 2, pair.begin() + n - 1, pair.begin() + i + 1);
      std::copy(rank.begin() + i + 2, rank.begin() + n - 1, rank.begin() + i + 1);
    }
    --n;
    if (i > 0) look_up(i - 1);
    if (i + 1 < n) look_up(i);
  }
  ids.insert(ids.end(), id.begin(), id.begin() + n);
}

void Bpe::encode_long(std::string_view piece, BpeScratch& scratch,
                      std::vector<int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto n = static_cast<int32_t>(piece.size());
  symbols.resize(piece.size());
  queue.clear();
  const auto at = [&](int32_t i) -> BpeScratch::Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto key = [](uint32_t rank, int32_t i) {
    return (uint64_t{rank} << 32) | static_cast<uint32_t>(i);
  };
  const auto look_up = [&](int32_t i) {
    const Entry& pair = find(at(i).id, at(at(i).next).id);
    at(i).rank = pair.rank;
    at(i).merged = pair.merged;
    if (pair.rank == kNoRank) return false;
    queue.push_back(key(pair.rank, i));
    return true;
  };

  for (int32_t i = 0; i < n; ++i) {
    at(i) = {byte_ids_[static_cast<uint8_t>(piece[static_cast<size_t>(i)])], i - 1, i + 1, kNoRank,
             -1};
  }
  for (int32_t i = 0; i + 1 < n; ++i) look_up(i);
  constexpr std::greater<> kMinFirst;
  std::make_heap(queue.begin(), queue.end(), kMinFirst);
  while (!queue.empty()) {
    const uint64_t best = queue.front();
    std::pop_heap(queue.begin(), queue.end(), kMinFirst);
    queue.pop_back();
    const auto i = static_cast<int32_t>(best & 0xFFFFFFFFu);
    if (key(at(i).rank, i) != best) continue;  // the pair has changed since it was queued
    auto& left = at(i);
    auto& right = at(left.next);
    left.id = left.merged;
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
