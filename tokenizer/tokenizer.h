/// Text -> token ids, and back.
#ifndef VLR_TOKENIZER_TOKENIZER_H_
#define VLR_TOKENIZER_TOKENIZER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer_json.h"
#include "vlr/status.h"

namespace vlr {

/// A vocabulary with its merges and added tokens. Immutable: any number of threads may share one.
class Tokenizer {
 public:
  /// See parse_tokenizer_json for what is accepted, and for the codes.
  static Result<Tokenizer> from_json(std::string_view json);
  /// The same from a file; kNotFound where it cannot be read.
  static Result<Tokenizer> open(const std::string& path);

  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;

  /// The largest id, plus 1.
  int32_t num_ids() const { return static_cast<int32_t>(json_.texts.size()); }
  /// The token that stands for exactly this text ("yes", " yes", "<|image_pad|>").
  std::optional<int32_t> token_to_id(std::string_view text) const;
  /// The bytes a token stands for, which need not be valid UTF-8; empty where no token has the id.
  std::string_view text(int32_t id) const;
  /// Whether the token was added with special = true.
  bool is_special(int32_t id) const;
  std::span<const AddedToken> added_tokens() const { return json_.added_tokens; }
  /// The texts of all ids, one after the other. A token may end within a character.
  std::string decode(std::span<const int32_t> ids) const;

  /// The longest added token at the start of `text`, or nullptr. Those that are special count only
  /// up to a length of `max_special` bytes.
  const AddedToken* match_added(std::string_view text, size_t max_special) const;
  /// Whether an added token begins with this byte.
  bool begins_added(char c) const { return begins_added_[static_cast<uint8_t>(c)]; }

  const Bpe& bpe() const { return bpe_; }

 private:
  Tokenizer(TokenizerJson json, Bpe bpe);

  TokenizerJson json_;  // added_tokens sorted by content
  Bpe bpe_;
  std::vector<bool> special_;  // by id
  std::array<bool, 256> begins_added_{};
};

/// A part of a text that a user wrote, as byte offsets [begin, end).
struct UserText {
  size_t begin, end;
};

/// Encodes with one Tokenizer, which must outlive it. Serves one thread at a time: it owns a cache
/// of pieces (1 MB, never grows) and the working memory, so that encoding does not allocate. What
/// large texts make of that is given back: it keeps kKeptScratch bytes at most.
class Encoder {
 public:
  static constexpr size_t kKeptScratch = size_t{1} << 20;
  /// The cache, and that: what it holds between calls, at most.
  static constexpr size_t kMostBytes = (size_t{1} << 20) + kKeptScratch;

  explicit Encoder(const Tokenizer& tokenizer);

  const Tokenizer& tokenizer() const { return *tokenizer_; }

  /// Appends the ids of `text` (less than 2 GB): added tokens are cut out of the raw text, each the
  /// longest at the leftmost position; what remains is normalised, split, and merged. Bytes that
  /// are not UTF-8 count as U+FFFD (see Utf8Char).
  ///
  /// A special token is recognised only where it lies wholly outside of `user` (sorted, disjoint),
  /// so that nobody can end a turn or place an image by typing it; inside it is ordinary text.
  /// Added tokens that are not special are recognised everywhere.
  void encode(std::string_view text, std::span<const UserText> user, std::vector<int32_t>& ids);
  void encode(std::string_view text, std::vector<int32_t>& ids) { encode(text, {}, ids); }

  size_t scratch_bytes() const;  ///< that it holds beside the cache

 private:
  // Pieces of up to 15 bytes and 4 tokens: nearly all that occur twice.
  struct alignas(32) CachedPiece {
    uint64_t low = 0, high = 0;  // the bytes, zero-padded; the top byte of `high` is their number
    std::array<int32_t, 4> ids;  // -1 after the last one
  };

  void encode_between(std::string_view text, std::vector<int32_t>& ids);
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids);

  const Tokenizer* tokenizer_;
  Normalizer normalizer_;
  BpeScratch scratch_;
  std::vector<CachedPiece> cache_;  // direct-mapped
};

}  // namespace vlr

#endif  // VLR_TOKENIZER_TOKENIZER_H_
