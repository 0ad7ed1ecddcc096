#include "tokenizer/pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <gtest/gtest.h>
#include <pcre2.h>
#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "tests/tokenizer/support.h"
#include "tokenizer/unicode_classes.h"

namespace vlr {
namespace {

/// A PCRE2 pattern in Unicode mode: an independent reading of the regex and of the character
/// classes.
class Pcre {
 public:
  explicit Pcre(const std::string& pattern) {
    int error = 0;
    size_t offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    EXPECT_NE(code_, nullptr) << pattern << " at " << offset;
    data_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }

  /// The end of a match that starts at `begin`, or npos.
  size_t match(std::string_view text, size_t begin) const {
    const int n = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              begin, PCRE2_ANCHORED, data_.get(), nullptr);
    return n > 0 ? pcre2_get_ovector_pointer(data_.get())[1] : text.npos;
  }

 private:
  struct Free {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
    void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
  std::unique_ptr<pcre2_match_data, Free> data_;
};

/// kSplitRegex with White_Space spelled out, because PCRE2's \s also has U+180E.
std::string regex_for_pcre() {
  constexpr std::string_view kSpaces =
      R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029})"
      R"(\x{202f}\x{205f}\x{3000})";
  std::string out;
  const std::string_view regex = kSplitRegex;
  bool in_class = false;
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex.substr(i, 2) == R"(\s)") {
      out += in_class ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
      ++i;
    } else if (regex.substr(i, 2) == R"(\S)") {
      out += "[^" + std::string(kSpaces) + "]";
      ++i;
    } else {
      if (regex[i] == '[') in_class = true;
      if (regex[i] == ']') in_class = false;
      out += regex[i];
    }
  }
  return out;
}

bool is_scalar(uint32_t c) { return c < 0xD800 || (c >= 0xE000 && c < 0x110000); }

TEST(UnicodeClasses, AgreeWithPcre2OnWhatItKnows) {
  const Pcre letter(R"(\p{L})"), number(R"(\p{N})"), unassigned(R"(\p{Cn})");
  int known = 0;
  for (uint32_t c = 0; c < 0x110000; ++c) {
    const std::string text = is_scalar(c) ? utf8(c) : "";
    if (text.empty() || unassigned.match(text, 0) == 1 || unassigned.match(text, 0) == text.size())
      continue;
    ++known;
    const CharClass found = char_class(c);
    EXPECT_EQ(found == CharClass::kLetter, letter.match(text, 0) == text.size()) << std::hex << c;
    EXPECT_EQ(found == CharClass::kNumber, number.match(text, 0) == text.size()) << std::hex << c;
  }
  EXPECT_GT(known, 280'000);                          // with the private use areas
  EXPECT_EQ(char_class(0x1C89), CharClass::kLetter);  // new in Unicode 16.0
}

TEST(PieceEnd, SplitsLikeTheRegex) {
  const Pcre regex(regex_for_pcre());
  std::mt19937 rng(7);
  int pieces = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = random_text(rng, 1 + static_cast<int>(rng() % 12));
    for (const char* newer : {"\u1C89", "\U00031350"}) {  // not yet letters in PCRE2's Unicode
      for (size_t at; (at = text.find(newer)) != text.npos;)
        text.erase(at, std::string(newer).size());
    }
    for (size_t pos = 0; pos < text.size(); ++pieces) {
      const size_t end = piece_end(text, pos);
      ASSERT_EQ(end, regex.match(text, pos)) << "from " << pos << " in '" << text << "'";
      pos = end;
    }
  }
  EXPECT_GT(pieces, 50'000);
}

// All texts of up to six characters over one representative of each class and of each special case.
TEST(PieceEnd, SplitsLikeTheRegexExhaustively) {
  const Pcre regex(regex_for_pcre());
  const std::vector<std::string> alphabet = {"a", "s", "1", " ", "\u00A0", "\n", "'", ".", "ſ"};
  for (size_t length = 1; length <= 6; ++length) {
    std::vector<size_t> digits(length, 0);
    while (true) {
      std::string text;
      for (const size_t d : digits) text += alphabet[d];
      for (size_t pos = 0; pos < text.size();) {
        const size_t end = piece_end(text, pos);
        ASSERT_EQ(end, regex.match(text, pos)) << "from " << pos << " in '" << text << "'";
        pos = end;
      }
      size_t i = 0;
      while (i < length && ++digits[i] == alphabet.size()) digits[i++] = 0;
      if (i == length) break;
    }
  }
}

TEST(PieceEnd, TakesWhiteSpaceFromUnicode) {
  EXPECT_EQ(piece_end("\u0085\u0085a", 0), 2u);  // the second one goes with the "a"
  EXPECT_EQ(piece_end("\u180E\u180Ea", 0), 6u);  // no white space: punctuation
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const auto valid = [](std::string_view text) {
    std::string out;
    append_valid_utf8(text, out);
    return out;
  };
  const std::string r = "\uFFFD";
  // As bytes.decode("utf-8", "replace") in Python.
  EXPECT_EQ(valid("a\xFFz"), "a" + r + "z");
  EXPECT_EQ(valid("\x80\xBF"), r + r);
  EXPECT_EQ(valid("\xC3"), r);
  EXPECT_EQ(valid("\xC0\x80"), r + r);
  EXPECT_EQ(valid("\xE4\xB8"), r);
  EXPECT_EQ(valid("\xE4\xB8x"), r + "x");
  EXPECT_EQ(valid("\xE0\x80\x80"), r + r + r);
  EXPECT_EQ(valid("\xED\xA0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(valid("\xF0\x9F\x98<"), r + "<");
  EXPECT_EQ(valid("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(valid("\xF0\x9F\x98\x80 é 世"), "😀 é 世");
}

std::string nfc_of_utf8proc(const std::string& text) {
  auto* out = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
  std::string result = reinterpret_cast<const char*>(out);
  std::free(out);
  return result;
}

// Every code point alone; taken apart, so that its parts have to find each other; and after a mark
// that most other marks have to be sorted before.
TEST(Normalizer, EqualsUtf8procOnEveryCodePoint) {
  Normalizer normalizer;
  for (uint32_t c = 1; c < 0x110000; ++c) {
    if (!is_scalar(c)) continue;
    const std::string alone = utf8(c);
    auto* parts = utf8proc_NFD(reinterpret_cast<const utf8proc_uint8_t*>(alone.c_str()));
    const std::string apart = reinterpret_cast<const char*>(parts);
    std::free(parts);
    for (const std::string& text : {alone, apart, "a\u0345" + alone}) {
      ASSERT_EQ(normalizer.normalize(text), nfc_of_utf8proc(text)) << std::hex << c;
    }
  }
}

TEST(Normalizer, EqualsUtf8procOnMixedText) {
  Normalizer normalizer;
  std::mt19937 rng(11);
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = random_text(rng, 12);
    ASSERT_EQ(normalizer.normalize(text), nfc_of_utf8proc(text)) << text;
  }
}

TEST(Normalizer, ReturnsComposedTextItself) {
  Normalizer normalizer;
  for (const std::string_view text :
       {"plain", "naïve café", "什么是机器学习？", "한글", "“quotes” 😀"}) {
    EXPECT_EQ(normalizer.normalize(text).data(), text.data()) << text;
  }
  EXPECT_EQ(normalizer.normalize("\xFF"
                                 "e\u0301"),
            "\uFFFDé");
}

// Sorting marks one step at a time would take hours.
TEST(Normalizer, SortsLongRunsOfMarks) {
  constexpr int kPairs = 500'000;
  std::string text = "x";
  for (int i = 0; i < kPairs; ++i) text += "\u0301\u0316";  // classes 230 and 220
  std::string sorted = "x";
  for (int i = 0; i < kPairs; ++i) sorted += "\u0316";
  for (int i = 0; i < kPairs; ++i) sorted += "\u0301";
  Normalizer normalizer;
  EXPECT_TRUE(normalizer.normalize(text) == sorted);
}

}  // namespace
}  // namespace vlr
