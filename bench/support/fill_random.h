#ifndef VLR_BENCH_SUPPORT_FILL_RANDOM_H_
#define VLR_BENCH_SUPPORT_FILL_RANDOM_H_

#include "kernels/core/tensor.h"
#include "vlr/status.h"

struct CUstream_st;

namespace vlr::bench {

/// Normal values of deviation 1 in a contiguous f32, bf16 or f16 tensor on the device; uniform
/// ones, but no NaN, in one of u8, i8 or f8e4m3. A function of seed and place.
Status fill_random(const Tensor& t, uint64_t seed, CUstream_st* stream);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_FILL_RANDOM_H_
