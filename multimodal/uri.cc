#include "multimodal/uri.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace vlr::media {
namespace {

constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
constexpr bool is_space(int c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

constexpr int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  const char l = lower(c);
  return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return lower(c); });
  return out;
}

/// Percent-encoded text, byte by byte.
class PercentReader {
 public:
  static constexpr int kEnd = -1, kMalformed = -2;

  explicit PercentReader(std::string_view text, size_t begin = 0) : text_(text), end_(begin) {}

  /// The next byte, kEnd or kMalformed.
  int next() {
    begin_ = end_;
    if (end_ == text_.size()) return kEnd;
    const char c = text_[end_++];
    if (c != '%') return static_cast<uint8_t>(c);
    if (text_.size() - end_ < 2) return kMalformed;
    const int high = hex_value(text_[end_]), low = hex_value(text_[end_ + 1]);
    if (high < 0 || low < 0) return kMalformed;
    end_ += 2;
    return 16 * high + low;
  }

  /// An error at what next() gave last.
  Status error(int byte, std::string_view why) const {
    const std::string shown = byte > ' ' && byte < 0x7f
                                  ? fmt::format("'{}'", static_cast<char>(byte))
                                  : fmt::format("0x{:02x}", byte);
    return {Code::kInvalidArgument, fmt::format("character {} is {}{}", begin_ + 1, shown, why)};
  }
  Status malformed() const { return error('%', " without two hexadecimal digits behind it"); }

 private:
  std::string_view text_;
  size_t begin_ = 0, end_;  // of the byte that next() gave last
};

// RFC 4648, section 4: the value of each symbol, -1 for what is none.
constexpr std::array<int8_t, 256> kBase64 = [] {
  constexpr std::string_view kSymbols =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<int8_t, 256> values{};
  values.fill(-1);
  for (size_t i = 0; i < kSymbols.size(); ++i)
    values[static_cast<uint8_t>(kSymbols[i])] = static_cast<int8_t>(i);
  return values;
}();

Status check_size(int64_t size, int64_t max_bytes) {
  if (size == 0) return {Code::kInvalidArgument, "is empty"};
  if (size > max_bytes) {
    return {Code::kInvalidArgument,
            fmt::format("has {} bytes, at most {} are allowed", size, max_bytes)};
  }
  return {};
}

// What stands in `uri` from `begin` on. Both decoders first look at all of it, then decode.
Result<std::vector<std::byte>> decode_percent(std::string_view uri, size_t begin,
                                              int64_t max_bytes) {
  int64_t size = 0;
  PercentReader in(uri, begin);
  for (int b; (b = in.next()) != PercentReader::kEnd; ++size) {
    if (b == PercentReader::kMalformed) return in.malformed();
  }
  VLR_RETURN_IF_ERROR(check_size(size, max_bytes));
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  in = PercentReader(uri, begin);
  for (std::byte& b : bytes) b = static_cast<std::byte>(in.next());
  return bytes;
}

Result<std::vector<std::byte>> decode_base64(std::string_view uri, size_t begin,
                                             int64_t max_bytes) {
  int64_t symbols = 0, padding = 0;
  PercentReader in(uri, begin);
  for (int c; (c = in.next()) != PercentReader::kEnd;) {
    if (c == PercentReader::kMalformed) return in.malformed();
    if (is_space(c)) continue;
    if (c == '=') {
      ++padding;
    } else if (kBase64[static_cast<size_t>(c)] < 0) {
      return in.error(c, ", which is not base64");
    } else if (padding > 0) {
      return in.error(c, ", behind the '=' that ends base64");
    } else {
      ++symbols;
    }
  }
  // Four symbols make three bytes; two or three of them one or two bytes.
  if (symbols % 4 == 1) {
    return {Code::kInvalidArgument,
            fmt::format("base64 is cut: {} symbols, one more than a multiple of 4", symbols)};
  }
  if (const int64_t wanted = (4 - symbols % 4) % 4; padding > wanted) {
    return {Code::kInvalidArgument, fmt::format("{} '=' behind {} symbols of base64, expected {}",
                                                padding, symbols, wanted)};
  }
  VLR_RETURN_IF_ERROR(check_size(symbols * 6 / 8, max_bytes));
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<size_t>(symbols * 6 / 8));
  uint32_t bits = 0;
  int num_bits = 0;
  in = PercentReader(uri, begin);
  for (int c; (c = in.next()) != PercentReader::kEnd;) {
    const int value = kBase64[static_cast<size_t>(c)];
    if (value < 0) continue;
    bits = bits << 6 | static_cast<uint32_t>(value);
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes.push_back(static_cast<std::byte>(bits >> num_bits & 0xff));
  }
  return bytes;
}

}  // namespace

std::string scheme_of(std::string_view uri) {
  const auto is_scheme = [](char c) {
    return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
  };
  const auto colon = static_cast<size_t>(std::ranges::find_if_not(uri, is_scheme) - uri.begin());
  if (colon < 2 || colon == uri.size() || uri[colon] != ':' || !is_letter(uri[0])) return "";
  const std::string_view rest = uri.substr(colon + 1);
  std::string scheme = lower(uri.substr(0, colon));
  const bool is_uri =
      rest.starts_with("//") || scheme == "data" || (scheme == "file" && rest.starts_with("/"));
  return is_uri ? scheme : "";
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  PercentReader in(text);
  for (int b; (b = in.next()) != PercentReader::kEnd;) {
    if (b == PercentReader::kMalformed) return std::nullopt;
    out += static_cast<char>(b);
  }
  return out;
}

std::string quoted_url(std::string_view url) {
  constexpr std::string_view kUnreserved = "-._~", kReserved = "!#$&'()*+,/:;=?@[]";
  const auto unreserved = [&](char c) {
    return is_letter(c) || is_digit(c) || kUnreserved.find(c) != kUnreserved.npos;
  };
  const size_t authority = std::min(url.find("://"), url.size());
  const size_t path =
      std::min(url.find_first_of("/?#", std::min(authority + 3, url.size())), url.size());
  const bool has_escapes = percent_decoded(url.substr(path)).has_value();
  std::string out(url.substr(0, path));
  for (size_t i = path; i < url.size(); ++i) {
    char c = url[i];
    if (c == '%' && has_escapes) {
      c = static_cast<char>(16 * hex_value(url[i + 1]) + hex_value(url[i + 2]));
      if (unreserved(c))
        out += c;
      else
        out += url.substr(i, 3);
      i += 2;
    } else if (unreserved(c) || kReserved.find(c) != kReserved.npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
  return out;
}

Result<std::vector<std::byte>> decode_data_uri(std::string_view uri, int64_t max_bytes) {
  const size_t comma = uri.find(',');
  if (comma == std::string_view::npos)
    return {Code::kInvalidArgument, "no ',' between the media type and the data"};
  if (const size_t hash = uri.find('#', comma); hash != std::string_view::npos) {
    return {Code::kInvalidArgument,
            fmt::format("character {} is '#', which data has to write as %23", hash + 1)};
  }
  const std::string type = lower(uri.substr(0, comma));
  return type.ends_with(";base64") ? decode_base64(uri, comma + 1, max_bytes)
                                   : decode_percent(uri, comma + 1, max_bytes);
}

}  // namespace vlr::media
