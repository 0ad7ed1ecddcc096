#include "kernels/core/text.h"

#include <fmt/format.h>

#include <cstdint>

namespace vlr {
namespace {

struct Character {
  uint32_t code_point;
  size_t size;
  bool valid;
};

/// The character at text[pos]; of what is not UTF-8, one byte.
Character character_at(std::string_view text, size_t pos) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[pos + i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {first, 1, true};
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || size > text.size() - pos) return {0, 1, false};
  uint32_t c = first & (0xFFu >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {0, 1, false};
    c = c << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (c < kLeast[size] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return {0, 1, false};
  return {c, size, true};
}

bool commands_terminals(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const Character c = character_at(text, pos);
    if (c.valid && !commands_terminals(c.code_point)) {
      out += text.substr(pos, c.size);
    } else {
      out += '?';
    }
    pos += c.size;
  }
  return out;
}

size_t valid_utf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    const Character c = character_at(text, pos);
    if (!c.valid) break;
    pos += c.size;
  }
  return pos;
}

std::string not_utf8(std::span<const std::string> texts) {
  for (const std::string& text : texts) {
    if (const size_t valid = valid_utf8(text); valid < text.size())
      return fmt::format("a text has bytes that are not UTF-8, the first at {}", valid);
  }
  return "";
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kMaxShown = 160;
  if (text.size() <= kMaxShown) return fmt::format("'{}'", printable(text));
  size_t shown = kMaxShown;  // not within a character
  while (shown > kMaxShown - 4 && (text[shown] & 0xC0) == 0x80) --shown;
  return fmt::format("'{}...'", printable(text.substr(0, shown)));
}

Result<size_t> check_json_bounds(std::string_view json, size_t max_bytes, int max_depth) {
  if (json.size() > max_bytes) {
    return {Code::kDataLoss,
            fmt::format("JSON of {} bytes; at most {} are read", json.size(), max_bytes)};
  }
  if (const size_t nul = json.find('\0'); nul != json.npos)
    return {Code::kDataLoss, fmt::format("not JSON: byte {} is a NUL", nul)};
  int depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      i += c == '\\';
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++values;
      if (++depth > max_depth)
        return {Code::kDataLoss, fmt::format("JSON is nested deeper than {} levels", max_depth)};
    } else if (c == ']' || c == '}') {
      --depth;
    } else {
      values += c == ',';
    }
  }
  return values;
}

std::string_view json_reason(std::string_view what) {
  if (what.starts_with("[json.exception.")) what.remove_prefix(what.find(']') + 1);
  while (what.starts_with(' ')) what.remove_prefix(1);
  return what;
}

}  // namespace vlr
