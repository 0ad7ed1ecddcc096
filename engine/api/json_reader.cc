#include "engine/api/json_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "model/json.h"
#include "tokenizer/pretokenize.h"

namespace vlr {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

/// The four hexadecimal digits behind \u; -1: there are none.
int32_t hex4(std::string_view text) {
  uint32_t value = 0;
  if (text.size() < 4) return -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + 4, value, 16);
  return error == std::errc() && end == text.data() + 4 ? static_cast<int32_t>(value) : -1;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

std::string_view json_kind_name(JsonReader::Kind kind) {
  constexpr std::string_view kNames[] = {"null", "boolean", "number", "string", "array", "object"};
  return kNames[static_cast<size_t>(kind)];
}

JsonExtent json_extent(std::string_view text) {
  JsonReader in(text);
  in.skip();
  in.finish();
  if (in.ok()) return JsonExtent::kWhole;
  return in.ended_early() ? JsonExtent::kBeginning : JsonExtent::kNeither;
}

JsonReader::JsonReader(std::string_view text) : text_(text) {
  if (text_.starts_with("\xEF\xBB\xBF")) pos_ = 3;  // a byte order mark
  space();
}

void JsonReader::space() {
  while (pos_ < text_.size() && std::string_view(" \t\n\r").find(text_[pos_]) != text_.npos) ++pos_;
}

void JsonReader::expected(std::string_view what) {
  if (!ok()) return;
  ended_early_ = pos_ >= text_.size();
  const std::string_view before = text_.substr(0, pos_);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t column = pos_ - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
  give_up(fmt::format("not JSON: expected {} at line {}, column {}, got {}", what, line, column,
                      ended_early_ ? "the end" : in_quotes(text_.substr(pos_, 1))));
}

void JsonReader::give_up(std::string why) {
  if (ok()) error_ = std::move(why);
}

JsonReader::Kind JsonReader::kind() {
  if (!ok()) return Kind::kNull;
  const char c = pos_ < text_.size() ? text_[pos_] : '\0';
  switch (c) {
    case '"':
      return Kind::kString;
    case '[':
      return Kind::kArray;
    case '{':
      return Kind::kObject;
    case 't':
    case 'f':
      return Kind::kBoolean;
    case 'n':
      return Kind::kNull;
    default:
      if (c == '-' || is_digit(c)) return Kind::kNumber;
      expected("a value");
      return Kind::kNull;
  }
}

std::string_view JsonReader::skip() {
  const Kind k = kind();
  const size_t begin = pos_;
  if (!ok()) return {};
  if (k == Kind::kString) {
    read_string(nullptr);
  } else if (k == Kind::kArray) {
    each([] {});
  } else if (k == Kind::kObject) {
    members([](const String&) {});
  } else if (k == Kind::kNumber) {
    number();
  } else {
    literal(k == Kind::kNull ? "null" : text_[pos_] == 't' ? "true" : "false");
  }
  std::string_view value = text_.substr(begin, pos_ - begin);
  if (k != Kind::kArray && k != Kind::kObject) space();
  while (!value.empty() && static_cast<unsigned char>(value.back()) <= ' ') value.remove_suffix(1);
  return value;
}

JsonReader::String JsonReader::string() {
  String out;
  if (ok()) read_string(&out);
  space();
  return out;
}

void JsonReader::finish() {
  if (ok() && pos_ < text_.size()) expected("nothing more");
}

// The bracket that opens has been seen by kind().
void JsonReader::enter() {
  if (!ok()) return;
  if (++depth_ > kMaxDepth)
    return give_up(fmt::format("JSON is nested deeper than {} levels", kMaxDepth));
  ++pos_;
  space();
  first_ = true;
}

/// Whether another element follows; takes the comma before it, or the bracket that closes.
bool JsonReader::next(char close) {
  if (!ok()) return false;
  const bool first = std::exchange(first_, false);
  if (pos_ < text_.size() && text_[pos_] == close) {
    ++pos_;
    return false;
  }
  if (first) return true;
  if (pos_ >= text_.size() || text_[pos_] != ',') {
    expected(close == ']' ? "',' or ']'" : "',' or '}'");
    return false;
  }
  ++pos_;
  space();
  return true;
}

void JsonReader::leave() {
  --depth_;
  first_ = false;
  space();
}

JsonReader::String JsonReader::member_key() {
  String key;
  if (pos_ >= text_.size() || text_[pos_] != '"') {
    expected("a key in double quotes");
    return key;
  }
  key = string();
  if (!ok()) return key;
  if (pos_ >= text_.size() || text_[pos_] != ':') {
    expected("':'");
    return key;
  }
  ++pos_;
  space();
  return key;
}

void JsonReader::literal(std::string_view word) {
  for (const char c : word) {
    if (pos_ >= text_.size() || text_[pos_] != c) return expected(word);
    ++pos_;
  }
}

void JsonReader::number() {
  const auto at = [&](char c) { return pos_ < text_.size() && text_[pos_] == c; };
  const auto digits = [&] {
    const size_t begin = pos_;
    while (pos_ < text_.size() && is_digit(text_[pos_])) ++pos_;
    if (pos_ == begin) expected("a digit");
  };
  if (at('-')) ++pos_;
  if (at('0')) {
    ++pos_;
  } else {
    digits();
  }
  if (ok() && at('.')) {
    ++pos_;
    digits();
  }
  if (ok() && (at('e') || at('E'))) {
    ++pos_;
    if (at('+') || at('-')) ++pos_;
    digits();
  }
}

/// From the quote that opens to behind the one that closes; null: nobody wants it.
void JsonReader::read_string(String* out) {
  const auto defect = [&](std::string what) {
    if (out && out->defect.empty()) out->defect = std::move(what);
  };
  ++pos_;
  while (true) {
    size_t plain = pos_;
    while (plain < text_.size() && static_cast<signed char>(text_[plain]) >= 0x20 &&
           text_[plain] != '"' && text_[plain] != '\\')
      ++plain;
    if (out) out->text.append(text_, pos_, plain - pos_);
    pos_ = plain;
    if (pos_ >= text_.size()) return expected("'\"' at the end of a string");
    const auto c = static_cast<unsigned char>(text_[pos_]);
    if (c == '"') {
      ++pos_;
      return;
    }
    if (c == '\\') {
      escape(out);
    } else if (c < 0x20) {
      defect(fmt::format("a control character that is not escaped, {:#04x}", c));
      if (out) out->text += kReplacement;
      ++pos_;
    } else {
      const Utf8Char u = decode_utf8(text_, pos_);
      if (!u.valid) defect(fmt::format("bytes that are not UTF-8, the first being {:#04x}", c));
      if (out) out->text += u.valid ? text_.substr(pos_, u.size) : kReplacement;
      pos_ += u.size;
    }
    if (!ok()) return;
  }
}

/// From the backslash to behind what it stands before.
void JsonReader::escape(String* out) {
  const auto defect = [&](std::string what) {
    if (!out) return;
    if (out->defect.empty()) out->defect = std::move(what);
    out->text += kReplacement;
  };
  if (++pos_ >= text_.size()) return expected("an escape");
  const char c = text_[pos_];
  constexpr std::string_view kEscapes = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
  if (const size_t i = kEscapes.find(c); i != kEscapes.npos) {
    if (out) out->text += kMeanings[i];
    ++pos_;
    return;
  }
  // Of what is no escape the backslash alone is taken.
  if (c != 'u') return defect(fmt::format("an escape that is none, \\{}", printable({&c, 1})));
  const int32_t unit = hex4(text_.substr(++pos_));
  if (unit < 0) return defect("\\u without four hexadecimal digits");
  pos_ += 4;
  if (unit < 0xD800 || unit > 0xDFFF) {
    if (out) append_utf8(static_cast<uint32_t>(unit), out->text);
    return;
  }
  const int32_t low =
      unit < 0xDC00 && text_.substr(pos_).starts_with("\\u") ? hex4(text_.substr(pos_ + 2)) : -1;
  if (low < 0xDC00 || low > 0xDFFF)
    return defect(fmt::format("half a surrogate pair, \\u{:04x}", unit));
  pos_ += 6;
  if (out)
    append_utf8(0x10000 + (static_cast<uint32_t>(unit - 0xD800) << 10) +
                    static_cast<uint32_t>(low - 0xDC00),
                out->text);
}

}  // namespace vlr
