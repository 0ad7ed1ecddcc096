/// The size of the largest value.
#ifndef VLR_KERNELS_QUANT_ABSMAX_H_
#define VLR_KERNELS_QUANT_ABSMAX_H_

#include <algorithm>
#include <bit>
#include <cstdint>

namespace vlr {

/// max |v[i]|, and NaN if there is one: sizes of floats are ordered as their bits are, NaN last. A
/// maximum of integers is also one that compilers turn into vectors.
inline float absmax(const float* v, int64_t n) {
  int32_t most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::bit_cast<int32_t>(v[i]) & 0x7fffffff);
  return std::bit_cast<float>(most);
}

}  // namespace vlr

#endif  // VLR_KERNELS_QUANT_ABSMAX_H_
