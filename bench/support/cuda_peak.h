#ifndef VLR_BENCH_SUPPORT_CUDA_PEAK_H_
#define VLR_BENCH_SUPPORT_CUDA_PEAK_H_

#include <functional>

#include "vlr/status.h"

struct CUstream_st;

namespace vlr::bench {

/// Bytes read plus bytes written per second by cudaMemcpyAsync from one gigabyte to another.
Result<double> measure_copy(CUstream_st* stream);

/// Floating-point operations per second of a bf16 product of 8192^3 on normal random data, by the
/// fastest algorithm that cuBLASLt offers. `watch` is called while it runs.
Result<double> measure_matmul(CUstream_st* stream, const std::function<void()>& watch);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_CUDA_PEAK_H_
