/// tokenizer.json, the Hugging Face format, for byte-level BPE tokenizers of the Qwen2 and Qwen3
/// family.
#ifndef VLR_TOKENIZER_TOKENIZER_JSON_H_
#define VLR_TOKENIZER_TOKENIZER_JSON_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "vlr/status.h"

namespace vlr {

/// Two adjacent tokens become one.
struct Merge {
  int32_t left, right, merged;
};

/// Text that becomes one token before anything else looks at it.
struct AddedToken {
  int32_t id;
  std::string content;
  bool special;
};

struct TokenizerJson {
  std::vector<std::string> texts;  ///< by id: the bytes a token stands for; empty where no token is
  std::unordered_map<std::string, int32_t> vocab;  ///< bytes -> id; without the added tokens
  std::vector<Merge> merges;                       ///< in order of rank
  std::vector<AddedToken> added_tokens;
};

/// Ids are below this, which bounds what a damaged file can make us allocate.
inline constexpr int32_t kMaxTokenId = 1 << 19;
/// There are at most this many merges. Bpe packs both.
inline constexpr int32_t kMaxMerges = 1 << 22;

/// Published ones have up to 35 MB.
inline constexpr size_t kMaxTokenizerBytes = size_t{64} << 20;

/// Reads both spellings of merges, ["a", "b"] and "a b". kDataLoss: damaged; kUnimplemented: a
/// tokenizer of another kind, whose ids would be wrong. The result has a token for each of the 256
/// bytes, and every id in it is the index of a text.
Result<TokenizerJson> parse_tokenizer_json(std::string_view json);

}  // namespace vlr

#endif  // VLR_TOKENIZER_TOKENIZER_JSON_H_
