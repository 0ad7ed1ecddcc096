#ifndef VLR_BENCH_SUPPORT_CUDA_PEAK_H_
#define VLR_BENCH_SUPPORT_CUDA_PEAK_H_

#include <functional>

#include "bench/support/roofline.h"
#include "vlr/status.h"

struct CUstream_st;

namespace vlr::bench {

/// Bytes read plus bytes written per second by cudaMemcpyAsync within `bytes`, again and again: from
/// one half of them to the other.
Result<double> measure_copy(CUstream_st* stream, int64_t bytes);

/// Floating-point operations per second of products on normal random data by the fastest algorithm
/// that cuBLASLt offers, the best of some shapes, at settled clocks. `watch` is called while it runs.
/// 0 for what cuBLASLt does not compute on tensor cores.
Result<double> measure_matmul(CUstream_st* stream, Unit unit, const std::function<void()>& watch);

/// Launches a bf16 product as large as a model's each time it is called.
Result<std::function<Status()>> make_company(CUstream_st* stream);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_CUDA_PEAK_H_
