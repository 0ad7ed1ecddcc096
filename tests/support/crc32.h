/// CRC-32 as zlib's, bit by bit: of goldens' values, and of PNG chunks that tests make.
#ifndef VLR_TESTS_SUPPORT_CRC32_H_
#define VLR_TESTS_SUPPORT_CRC32_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace vlr::test {

/// Of a contiguous range, as its elements lie in memory.
template <class Range>
uint32_t crc32(const Range& values) {
  uint32_t crc = ~0u;
  for (const std::byte b : std::as_bytes(std::span(values))) {
    crc ^= static_cast<uint32_t>(b);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

}  // namespace vlr::test

#endif  // VLR_TESTS_SUPPORT_CRC32_H_
