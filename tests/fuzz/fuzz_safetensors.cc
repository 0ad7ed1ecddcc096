// A safetensors header, as a file and as bare JSON: it is refused, or its tensors fill the data
// exactly.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/runtime/safetensors.h"

namespace {

void check(std::span<const std::byte> head, int64_t file_bytes) {
  const auto header = vlr::parse_safetensors_header(head, file_bytes);
  if (!header) {
    if (header.error().ok() || header.error().message().size() > 1000) std::abort();
    return;
  }
  uint64_t json_bytes = 0;
  std::memcpy(&json_bytes, head.data(), sizeof json_bytes);
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const auto& [name, t] : header->tensors) ranges.emplace_back(t.file_offset, t.bytes());
  std::ranges::sort(ranges);
  auto pos = static_cast<int64_t>(8 + json_bytes);
  for (const auto& [offset, bytes] : ranges) {
    if (offset != pos || bytes < 0) std::abort();
    pos += bytes;
  }
  if (pos != file_bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  check(bytes, static_cast<int64_t>(size));

  // With the right length in front and 64 bytes of data behind, mutations of the JSON get further.
  constexpr int64_t kDataBytes = 64;
  std::vector<std::byte> head(8 + size);
  const uint64_t length = size;
  std::memcpy(head.data(), &length, sizeof length);
  if (size) std::memcpy(head.data() + 8, data, size);
  check(head, static_cast<int64_t>(head.size()) + kDataBytes);
  return 0;
}
