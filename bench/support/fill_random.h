#ifndef VLR_BENCH_SUPPORT_FILL_RANDOM_H_
#define VLR_BENCH_SUPPORT_FILL_RANDOM_H_

#include "kernels/core/tensor.h"
#include "vlr/status.h"

struct CUstream_st;

namespace vlr::bench {

/// What random operands begin with whatever the seed, here and on the host; of u8 the code.
inline constexpr float kFirstValue = 0.5f;
inline constexpr uint8_t kFirstCode = 0x55;

/// Values in a contiguous tensor on the device, a function of seed and place but for the first one: normal ones of
/// deviation 1 in f32, bf16 and f16; in i8 and f8e4m3 the codes that quantize_rows makes of them,
/// of deviation 127/4 and 448/4; in u8 (packed codes, pixels) all bytes alike.
Status fill_random(const Tensor& t, uint64_t seed, CUstream_st* stream);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_FILL_RANDOM_H_
