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

/// Working memory of Bpe::encode, kept between calls so that they do not allocate.
struct BpeScratch {
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // indexes; next of the last one is the number of symbols
    uint32_t rank;           // of the pair (this, next)
    int32_t merged;          // what that pair becomes
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
  static constexpr uint32_t kNoRank = UINT32_MAX;

  struct Entry {
    uint64_t pair = UINT64_MAX;  // left << 32 | right; UINT64_MAX: a free slot
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };

  size_t slot_of(uint64_t pair) const;
  const Entry& find(int32_t left, int32_t right) const;
  void encode_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void encode_long(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Entry> table_;  // open addressing, a power of two of slots, at most half full
};

}  // namespace vlr

#endif  // VLR_TOKENIZER_BPE_H_
