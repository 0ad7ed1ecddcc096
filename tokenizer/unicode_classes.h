/// What the split regex of pretokenize.h has to know about a code point.
#ifndef VLR_TOKENIZER_UNICODE_CLASSES_H_
#define VLR_TOKENIZER_UNICODE_CLASSES_H_

#include <array>
#include <cstdint>

namespace vlr {

enum class CharClass : uint8_t {
  kOther,
  kLetter,   ///< \p{L}
  kNumber,   ///< \p{N}
  kSpace,    ///< \s, that is White_Space, without the next two
  kNewline,  ///< \r and \n
};

/// Unicode 16.0, the version of the regex engine behind the Hugging Face tokenizers. The table is
/// our own because pieces, and so scores, must not depend on the Unicode version of an installed
/// library.
CharClass char_class(uint32_t code_point);

/// The same for ASCII, as a table.
extern const std::array<CharClass, 128> kAsciiClass;

}  // namespace vlr

#endif  // VLR_TOKENIZER_UNICODE_CLASSES_H_
