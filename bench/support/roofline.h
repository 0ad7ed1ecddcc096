/// What the machine can do, measured: the ceiling that benches hold their numbers against.
#ifndef VLR_BENCH_SUPPORT_ROOFLINE_H_
#define VLR_BENCH_SUPPORT_ROOFLINE_H_

#include "kernels/core/op.h"

namespace vlr::bench {

/// What multiplies: the dtype of a product's operands.
enum class Unit { kF32, kBF16, kF16, kF8, kI8 };
std::string_view unit_name(Unit unit);  // "bf16"

struct Peak {
  double flops;        ///< per second: f32 fused multiply-adds in registers, two operations each
  double bytes;        ///< per second: reading an array that no cache holds
  const char* target;  ///< the instruction set that both were measured with
};

/// Measured on all threads of the pool; takes some seconds.
Peak measure_peak(ThreadPool& threads);

/// Floating-point operations a second: f32 fused multiply-adds in registers, on all threads.
double measure_multiply_adds(ThreadPool& threads);
/// Bytes read a second by all threads of the pool, of an array of so many bytes that was read just
/// before: the roof of operands that are as warm as that.
double measure_read(ThreadPool& threads, int64_t bytes);

/// Seconds below which nobody can get: the larger of what the operations and the bytes take.
double roof_seconds(const Cost& cost, const Peak& peak);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_ROOFLINE_H_
