/// Whether bytes have changed, without a copy of them.
#ifndef VLR_BENCH_SUPPORT_CHECKSUM_H_
#define VLR_BENCH_SUPPORT_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define VLR_HOST_DEVICE __host__ __device__
#else
#define VLR_HOST_DEVICE
#endif

namespace vlr::bench {

/// Of byte `place`, or of eight bytes: to be added up in any order (splitmix64's mixing).
VLR_HOST_DEVICE constexpr uint64_t mixed(uint64_t value, uint64_t place) {
  uint64_t z = value ^ (place + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// Of eight bytes at a time, then of those that are left. The device's (compare_values.h) is the same.
inline uint64_t checksum(const std::byte* p, int64_t bytes) {
  uint64_t sum = 0;
  const int64_t words = bytes / 8;
  for (int64_t i = 0; i < words; ++i) {
    uint64_t word = 0;
    std::memcpy(&word, p + 8 * i, 8);
    sum += mixed(word, static_cast<uint64_t>(i));
  }
  for (int64_t i = 8 * words; i < bytes; ++i)
    sum += mixed(static_cast<uint64_t>(p[i]), static_cast<uint64_t>(i));
  return sum;
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_CHECKSUM_H_
