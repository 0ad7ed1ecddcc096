/// Text -> normalised text -> the pieces that BPE merges within.
#ifndef VLR_TOKENIZER_PRETOKENIZE_H_
#define VLR_TOKENIZER_PRETOKENIZE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vlr {

/// One code point of UTF-8 and the number of bytes it takes. An invalid sequence decodes to U+FFFD
/// and takes its maximal subpart (Unicode 16.0, section 3.9, U+FFFD substitution of maximal
/// subparts), which is what Python's errors="replace" does.
struct Utf8Char {
  uint32_t code_point;
  uint32_t size;  ///< 1..4
  bool valid;
};

/// The code point at `text[pos]`; pos < text.size().
Utf8Char decode_utf8(std::string_view text, size_t pos);

/// Appends `text`, each maximal invalid subsequence replaced by U+FFFD.
void append_valid_utf8(std::string_view text, std::string& out);

/// Turns text into valid UTF-8 in NFC. Keeps its buffers, so one normaliser serves one thread.
/// The reference normalises by Unicode 13: it differs where marks that are newer than that meet
/// others.
class Normalizer {
 public:
  /// `text` itself where nothing has to change (ASCII, and nearly all other text as it is found),
  /// otherwise a view of an own buffer that lasts until the next call. Takes linear time, but for
  /// sorting within a run of combining marks.
  std::string_view normalize(std::string_view text);

  /// Of its buffers.
  size_t num_bytes() const { return valid_.capacity() + composed_.capacity(); }
  /// Gives them back; views of them end.
  void clear() { std::string().swap(valid_), std::string().swap(composed_); }

 private:
  std::string valid_, composed_;
};

/// The regex whose matches, one after the other, are the pieces; as tokenizer.json spells it.
inline constexpr std::string_view kSplitRegex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The end of the piece that starts at `text[begin]`, for valid UTF-8; begin < text.size().
/// kSplitRegex written out by hand: so it cannot run out of a match limit or a JIT stack, and \s is
/// Unicode's White_Space (PCRE2's also has U+180E).
size_t piece_end(std::string_view text, size_t begin);

}  // namespace vlr

#endif  // VLR_TOKENIZER_PRETOKENIZE_H_
