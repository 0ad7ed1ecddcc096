/// What the machine can do, measured: the ceiling that benches hold their numbers against.
#ifndef VLR_BENCH_SUPPORT_ROOFLINE_H_
#define VLR_BENCH_SUPPORT_ROOFLINE_H_

#include "kernels/core/op.h"

namespace vlr::bench {

struct Peak {
  double flops;        ///< per second: f32 fused multiply-adds in registers, two operations each
  double bytes;        ///< per second: reading an array that no cache holds
  const char* target;  ///< the instruction set that both were measured with
};

/// Measured on all threads of the pool; takes some seconds.
Peak measure_peak(ThreadPool& threads);

/// Seconds below which nobody can get: the larger of what the operations and the bytes take.
double roof_seconds(const Cost& cost, const Peak& peak);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_ROOFLINE_H_
