#include "tokenizer/pretokenize.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "tokenizer/unicode_classes.h"

namespace vlr {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

uint8_t byte_at(std::string_view text, size_t pos) { return static_cast<uint8_t>(text[pos]); }

/// The position of the first byte >= 0x80 from `pos` on, or the end.
size_t skip_ascii(std::string_view text, size_t pos) {
  for (; text.size() - pos >= 8; pos += 8) {
    uint64_t eight;
    std::memcpy(&eight, text.data() + pos, 8);
    if (eight & 0x8080808080808080u) break;
  }
  while (pos < text.size() && byte_at(text, pos) < 0x80) ++pos;
  return pos;
}

/// Whether NFC leaves the code point alone wherever it stands, apart from joining marks that follow
/// it: NFC_Quick_Check is Yes, the combining class is 0, and it is no composition's second part.
/// Not all such code points, only the ranges that most text consists of.
bool is_nfc_inert(uint32_t c) {
  struct Range {
    uint32_t first, last;
  };
  static constexpr Range kInert[] = {
      {0x0000, 0x02FF},   {0x03A3, 0x0482},   {0x048A, 0x052F},   {0x05D0, 0x05EA},
      {0x0620, 0x064A},   {0x0904, 0x093B},   {0x0E01, 0x0E37},   {0x0E3F, 0x0E47},
      {0x10D0, 0x1160},   {0x1E00, 0x1F15},   {0x2002, 0x2064},   {0x2190, 0x2328},
      {0x2460, 0x2ADB},   {0x3001, 0x3029},   {0x3041, 0x3096},   {0x309B, 0x30FF},
      {0x3220, 0xA48C},   {0xAC00, 0xD7A3},   {0xFF01, 0xFFBE},   {0xFFFD, 0xFFFD},
      {0x1F300, 0x1F6D7}, {0x1F900, 0x1FA53}, {0x20000, 0x2A6DF},
  };
  for (const Range& range : kInert) {
    if (c <= range.last) return c >= range.first;
  }
  return false;
}

int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

/// Appends the NFC of `text` to `out`.
void append_composed(std::string_view text, std::string& out) {
  // A canonical decomposition has at most four code points (Unicode Standard Annex 15, section 14).
  constexpr utf8proc_ssize_t kMaxDecomposition = 4;
  std::vector<int32_t> points;
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = decode_utf8(text, pos);
    pos += c.size;
    std::array<int32_t, kMaxDecomposition> parts;
    int last_boundclass = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char(static_cast<int32_t>(c.code_point), parts.data(), kMaxDecomposition,
                                UTF8PROC_DECOMPOSE, &last_boundclass);
    points.insert(points.end(), parts.begin(), parts.begin() + n);
  }

  // Canonical ordering. utf8proc_decompose would do it by insertion, in quadratic time.
  for (auto it = points.begin(); it != points.end();) {
    if (combining_class(*it) == 0) {
      ++it;
      continue;
    }
    const auto end = std::find_if(it, points.end(), [](int32_t c) { return !combining_class(c); });
    std::stable_sort(it, end,
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    it = end;
  }

  const auto composed =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < composed; ++i) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const auto size = utf8proc_encode_char(points[static_cast<size_t>(i)], bytes.data());
    out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(size));
  }
}

/// The position of the first invalid sequence, or the end.
size_t valid_prefix(std::string_view text) {
  size_t pos = 0;
  while ((pos = skip_ascii(text, pos)) < text.size()) {
    const Utf8Char c = decode_utf8(text, pos);
    if (!c.valid) break;
    pos += c.size;
  }
  return pos;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t pos) {
  const uint32_t lead = byte_at(text, pos);
  if (lead < 0x80) return {lead, 1, true};
  // Table 3-7 of the Unicode Standard: the second byte's range depends on the lead byte.
  uint32_t length = 0, low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {0xFFFD, 1, false};
  }
  uint32_t code_point = lead & (0x7Fu >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if (pos + i >= text.size()) return {0xFFFD, i, false};
    const uint32_t next = byte_at(text, pos + i);
    if (next < low || next > high) return {0xFFFD, i, false};
    code_point = (code_point << 6) | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {code_point, length, true};
}

void append_valid_utf8(std::string_view text, std::string& out) {
  while (true) {
    const size_t valid = valid_prefix(text);
    out.append(text.substr(0, valid));
    if (valid == text.size()) return;
    out.append(kReplacement);
    text.remove_prefix(valid + decode_utf8(text, valid).size);
  }
}

std::string_view Normalizer::normalize(std::string_view text) {
  if (skip_ascii(text, 0) == text.size()) return text;
  if (valid_prefix(text) != text.size()) {
    valid_.clear();
    append_valid_utf8(text, valid_);
    text = valid_;
  }
  // Only stretches around a code point that is not inert are composed. Each starts with the inert
  // code point before, which it may join, and ends before the next inert one, which cannot join it.
  composed_.clear();
  size_t copied = 0;  // text[0, copied) is in composed_
  size_t previous = 0;
  for (size_t pos = 0; pos < text.size();) {
    if (const size_t ascii_end = skip_ascii(text, pos); ascii_end > pos) {
      previous = ascii_end - 1;
      pos = ascii_end;
      continue;
    }
    Utf8Char c = decode_utf8(text, pos);
    if (is_nfc_inert(c.code_point)) {
      previous = pos;
      pos += c.size;
      continue;
    }
    composed_.append(text.substr(copied, previous - copied));
    while (pos < text.size()) {
      c = decode_utf8(text, pos);
      if (is_nfc_inert(c.code_point)) break;
      pos += c.size;
    }
    append_composed(text.substr(previous, pos - previous), composed_);
    copied = previous = pos;
  }
  if (copied == 0) return text;
  composed_.append(text.substr(copied));
  return composed_;
}

namespace {

/// A position in valid UTF-8 and the class of the code point there; past the end the class is kEnd.
class Cursor {
 public:
  static constexpr CharClass kEnd = static_cast<CharClass>(0xFF);

  Cursor(std::string_view text, size_t pos) : text_(text), pos_(pos) { read(); }

  size_t pos() const { return pos_; }
  CharClass char_class() const { return class_; }
  bool is(CharClass c) const { return class_ == c; }
  bool is_white_space() const { return is(CharClass::kSpace) || is(CharClass::kNewline); }

  void next() {
    pos_ += size_;
    read();
  }
  void skip(CharClass c) {
    for (; pos_ < text_.size() && byte_at(text_, pos_) < 0x80; ++pos_) {
      if (kAsciiClass[byte_at(text_, pos_)] != c) return read();
    }
    for (read(); is(c); next()) {
    }
  }

 private:
  void read() {
    if (pos_ >= text_.size()) {
      class_ = kEnd;
      size_ = 0;
      return;
    }
    if (const uint8_t byte = byte_at(text_, pos_); byte < 0x80) {
      class_ = kAsciiClass[byte];
      size_ = 1;
      return;
    }
    const Utf8Char c = decode_utf8(text_, pos_);
    class_ = vlr::char_class(c.code_point);
    size_ = c.size;
  }

  std::string_view text_;
  size_t pos_;
  size_t size_ = 0;
  CharClass class_ = kEnd;
};

/// The length of (?i:'s|'t|'re|'ve|'m|'ll|'d) at the start of `text`, or 0.
size_t contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [&](size_t i) { return static_cast<char>(text[i] | 0x20); };
  switch (lower(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    default:
      break;
  }
  if (text.size() < 3) return 0;
  const char a = lower(1), b = lower(2);
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  // U+017F, the long s, folds to s.
  return text.substr(1, 2) == "\xC5\xBF" ? 3 : 0;
}

}  // namespace

size_t piece_end(std::string_view text, size_t begin) {
  using enum CharClass;
  if (const size_t size = contraction(text.substr(begin))) return begin + size;

  Cursor at(text, begin);
  const CharClass first = at.char_class();
  at.next();
  if (first == kNumber) return at.pos();

  // [^\r\n\p{L}\p{N}]?\p{L}+
  if (first == kLetter || (first != kNewline && at.is(kLetter))) {
    at.skip(kLetter);
    return at.pos();
  }
  //  ?[^\s\p{L}\p{N}]+[\r\n]*
  if (first == kOther || (text[begin] == ' ' && at.is(kOther))) {
    at.skip(kOther);
    at.skip(kNewline);
    return at.pos();
  }
  // White space: up to its last newline, if it has one; otherwise all of it at the end of the text,
  // and all but the last character before anything else, as long as that leaves one.
  size_t after_newline = first == kNewline ? at.pos() : 0;
  size_t last = begin;
  while (at.is_white_space()) {
    last = at.pos();
    const bool newline = at.is(kNewline);
    at.next();
    if (newline) after_newline = at.pos();
  }
  if (after_newline != 0) return after_newline;
  return at.is(Cursor::kEnd) || last == begin ? at.pos() : last;
}

}  // namespace vlr
