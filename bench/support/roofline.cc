#include "bench/support/roofline.h"

// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/support/roofline.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <vector>

#include "kernels/core/clock.h"
#include "kernels/core/simd.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::bench::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

constexpr int kSums =
    kRegisters == 32 ? 24 : 12;  // more than latency times ports, less than the registers

/// `steps` multiply-adds on each of kSums vectors; returns the floating-point operations done.
double multiply_add(int64_t steps, float* sink) {
  const F32 d;
  VecF32 sum[kSums];
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) sum[i] = hn::Set(d, static_cast<float>(i));
  const VecF32 a = hn::Set(d, 0.5f + *sink), b = hn::Set(d, 0.25f);
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 32
    for (int i = 0; i < kSums; ++i) sum[i] = fma(sum[i], a, b);
  }
  VecF32 total = hn::Zero(d);
#pragma GCC unroll 32
  for (int i = 0; i < kSums; ++i) total = hn::Add(total, sum[i]);
  HWY_ALIGN float lanes[kLanes];
  hn::Store(total, d, lanes);
  for (float lane : lanes) *sink += lane * 1e-30f;
  return 2.0 * static_cast<double>(steps) * kSums * kLanes;
}

float read(const float* x, int64_t n) {
  return fold(x, n, 0.0f, [](VecF32 sum, VecF32 v) HWY_ATTR { return hn::Add(sum, v); });
}

const char* target_name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace vlr::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::bench {
HWY_EXPORT(multiply_add);
HWY_EXPORT(read);
HWY_EXPORT(target_name);

namespace {

/// The best of many runs, in seconds: what the machine can do when nobody else wants it.
template <class F>
double best_seconds(F f) {
  double best = 1e30;
  for (int i = 0; i < 20; ++i) {
    const double start = seconds_now();
    f();
    best = std::min(best, seconds_now() - start);
  }
  return best;
}

}  // namespace

double measure_multiply_adds(ThreadPool& threads) {
  const int64_t n = threads.num_threads();
  std::vector<float> sinks(static_cast<size_t>(n) * 16);
  double flops = 0;
  const double compute = best_seconds([&] {
    std::vector<double> done(static_cast<size_t>(n));
    threads.parallel_for(n, [&](int64_t i, int) {
      done[static_cast<size_t>(i)] =
          HWY_DYNAMIC_DISPATCH(multiply_add)(4'000'000, &sinks[static_cast<size_t>(i) * 16]);
    });
    flops = 0;
    for (double d : done) flops += d;
  });
  return flops / compute;
}

Peak measure_peak(ThreadPool& threads) {
  // More than any last-level cache that a few cores have to themselves.
  constexpr int64_t kOutOfCaches = int64_t{1} << 30;
  return {measure_multiply_adds(threads), measure_read(threads, kOutOfCaches),
          HWY_DYNAMIC_DISPATCH(target_name)()};
}

double measure_read(ThreadPool& threads, int64_t bytes) {
  // Pieces of a megabyte at most, as many as there are threads at least.
  const int64_t all = bytes / static_cast<int64_t>(sizeof(float));
  const int64_t piece = std::clamp<int64_t>(all / threads.num_threads(), 1024, int64_t{1} << 18);
  const int64_t pieces = std::max<int64_t>(1, all / piece);
  // So often that a thread's start is not what takes the time.
  const int64_t rounds = std::max<int64_t>(1, (int64_t{1} << 26) / (pieces * piece));
  const std::vector<float> data(static_cast<size_t>(piece * pieces), 1.0f);
  std::vector<float> sums(static_cast<size_t>(pieces));
  const double seconds = best_seconds([&] {
    threads.parallel_for(rounds * pieces, [&](int64_t i, int) {
      const int64_t at = i % pieces;
      sums[static_cast<size_t>(at)] = HWY_DYNAMIC_DISPATCH(read)(data.data() + at * piece, piece);
    });
  });
  return static_cast<double>(rounds * piece * pieces) * sizeof(float) / seconds;
}

std::string_view unit_name(Unit unit) {
  constexpr std::string_view kNames[] = {"f32", "bf16", "f16", "f8e4m3", "i8"};
  return kNames[static_cast<int>(unit)];
}

double roof_seconds(const Cost& cost, const Peak& peak) {
  return std::max(cost.flops / peak.flops, cost.bytes / peak.bytes);
}

}  // namespace vlr::bench
#endif  // HWY_ONCE
