// Any bytes as the URI of a medium, remote ones not allowed: it gives bytes within the limit, or a
// message; its name is short and of one line. Any bytes come back from the data: URIs that carry
// them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "multimodal/source.h"

namespace {

constexpr vlr::SourceOptions kOptions = {.max_bytes = 64 * 1024};

std::string percent_encoded(std::span<const uint8_t> bytes) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "data:,";
  for (const uint8_t b : bytes) out += {'%', kHex[b / 16], kHex[b % 16]};
  return out;
}

std::string base64_encoded(std::span<const uint8_t> bytes) {
  constexpr std::string_view kSymbols =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out = "data:;base64,";
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t count = std::min<size_t>(bytes.size() - i, 3);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < count ? bytes[i + k] : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= count ? kSymbols[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

void expect_bytes(const std::string& uri, std::span<const uint8_t> expected) {
  const auto bytes = vlr::read_source(uri, {}, kOptions);
  const bool fits = !expected.empty() && std::ssize(expected) <= kOptions.max_bytes;
  if (bytes.ok() != fits) std::abort();
  if (fits && !std::ranges::equal(*bytes, std::as_bytes(expected))) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view uri(reinterpret_cast<const char*>(data), size);
  const std::string name = vlr::describe_source(uri);
  if (name.size() > 300 || std::ranges::any_of(name, [](char c) { return c >= 0 && c < ' '; }))
    std::abort();
  const auto bytes = vlr::read_source(uri, "/no/such/root", kOptions);
  if (bytes.ok() ? bytes->empty() || std::ssize(*bytes) > kOptions.max_bytes
                 : bytes.error().message().empty()) {
    std::abort();
  }
  expect_bytes(percent_encoded({data, size}), {data, size});
  expect_bytes(base64_encoded({data, size}), {data, size});
  return 0;
}
