/// Byte-level BPE within one piece: repeatedly the adjacent pair of lowest rank, the leftmost of
/// equals, becomes one token, until no pair has a rank.   Source: Sennrich et al. 2016,
/// section 3.2.
#ifndef VLR_TOKENIZER_BPE_H_
#define VLR_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer_json.h"

namespace vlr {

/// Working memory of Bpe::encode, kept between calls so that they do not allocate. See
/// Encoder::trim().
struct BpeScratch {
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // indexes; next of the last one is the number of symbols
    int32_t rank;            // of the pair (this, next)
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> queue;  // rank << 32 | index
};

/// The merge table. Immutable: any number of threads may share one.
class Bpe {
 public:
  /// Ids are those of `merges`; byte_ids[b] is the token of the byte b. Of two merges of one pair,
  /// the later one counts, as in the Hugging Face tokenizers.
  Bpe(const std::array<int32_t, 256>& byte_ids, std::span<const Merge> merges);

  /// Appends the tokens of one piece of less than 2^31 bytes. O(n log n) for long ones.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  // One merge: left << 45 | right << 26 | rank. Half a cache line less than plain members would
  // take, and most of the time goes into waiting for this table.
  static constexpr int kRankBits = 26, kIdBits = 19;
  static_assert(kMaxTokenId <= 1 << kIdBits && kMaxMerges <= 1 << kRankBits);
  static constexpr uint64_t kFree = UINT64_MAX;

  size_t slot_of(uint64_t pair) const;
  int32_t rank_of(int32_t left, int32_t right) const;
  void encode_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void encode_long(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<uint64_t> table_;  // open addressing, a power of two of slots, at most 3/4 full
  std::vector<int32_t> merged_;  // by rank: what the pair becomes
};

}  // namespace vlr

#endif  // VLR_TOKENIZER_BPE_H_
