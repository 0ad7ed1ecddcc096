#include "tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "tests/tokenizer/support.h"

namespace vlr {
namespace {

using Ids = std::vector<int32_t>;

/// A vocabulary of the bytes and of random concatenations of two known tokens over "abc".
struct RandomMerges {
  std::array<int32_t, 256> byte_ids;
  std::vector<Merge> merges;

  explicit RandomMerges(std::mt19937& rng) {
    std::map<std::string, int32_t> ids;
    std::vector<std::string> words = {"a", "b", "c"};
    for (int b = 0; b < 256; ++b) {
      byte_ids[static_cast<size_t>(b)] = 255 - b;  // not the identity
      ids[std::string(1, static_cast<char>(b))] = 255 - b;
    }
    while (merges.size() < 30) {
      const std::string left = words[rng() % words.size()], right = words[rng() % words.size()];
      const auto [it, is_new] = ids.emplace(left + right, static_cast<int32_t>(ids.size()));
      if (is_new) words.push_back(left + right);
      merges.push_back({ids[left], ids[right], it->second});
    }
    std::shuffle(merges.begin(), merges.end(), rng);
  }

  /// The definition, in cubic time.
  Ids encode(std::string_view piece) const {
    Ids ids;
    for (const char c : piece) ids.push_back(byte_ids[static_cast<uint8_t>(c)]);
    while (true) {
      size_t best_rank = merges.size(), best = 0;
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        for (size_t rank = merges.size(); rank-- > 0;) {  // the later of two entries counts
          if (merges[rank].left != ids[i] || merges[rank].right != ids[i + 1]) continue;
          if (rank < best_rank) best_rank = rank, best = i;
          break;
        }
      }
      if (best_rank == merges.size()) return ids;
      ids[best] = merges[best_rank].merged;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }
};

TEST(Bpe, MergesByRankThenLeftmost) {
  std::mt19937 rng(3);
  BpeScratch scratch;
  for (int round = 0; round < 200; ++round) {
    const RandomMerges model(rng);
    const Bpe bpe(model.byte_ids, model.merges);
    for (const size_t size : {1u, 2u, 3u, 7u, 20u, 127u, 128u, 129u, 300u}) {
      std::string piece;
      while (piece.size() < size) piece.push_back("abcabcabcx"[rng() % 10]);
      Ids ids;
      bpe.encode(piece, scratch, ids);
      ASSERT_EQ(ids, model.encode(piece)) << "round " << round << ": " << piece;
    }
  }
}

TEST(Bpe, WithoutMergesGivesBytes) {
  std::array<int32_t, 256> byte_ids;
  for (int32_t b = 0; b < 256; ++b) byte_ids[static_cast<size_t>(b)] = 1000 + b;
  const Bpe bpe(byte_ids, {});
  BpeScratch scratch;
  Ids ids = {7};
  bpe.encode("ab\xFF", scratch, ids);
  EXPECT_EQ(ids, (Ids{7, 1097, 1098, 1255}));
}

// A quadratic algorithm would take hours over these.
TEST(Bpe, EncodesMegabytePieces) {
  std::string mixed;
  std::mt19937 rng(5);
  while (mixed.size() < 1'000'000) mixed.push_back(static_cast<char>('a' + rng() % 26));
  for (const std::string& piece :
       {std::string(1'000'000, 'a'), std::string(1'000'000, '='), mixed}) {
    const Ids ids = encode(piece);
    EXPECT_LT(ids.size(), piece.size());
    EXPECT_TRUE(qwen3().decode(ids) == piece);
  }
}

}  // namespace
}  // namespace vlr
