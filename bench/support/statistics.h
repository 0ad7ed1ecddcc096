/// What can be said of a row of samples: a median with an interval, a ratio, a verdict.
#ifndef VLR_BENCH_SUPPORT_STATISTICS_H_
#define VLR_BENCH_SUPPORT_STATISTICS_H_

#include <cstdint>
#include <span>
#include <string_view>

namespace vlr::bench {

/// A value and the 95 % interval around it.
struct Interval {
  double value = 0, low = 0, high = 0;
  int64_t samples = -1;  ///< that it comes from; -1: it is given

  /// Half its width, as a share of the value.
  double spread() const { return value > 0 ? (high - low) / 2 / value : 0; }
  bool holds(double v) const { return low <= v && v <= high; }
};

double median(std::span<const double> samples);

/// The median of positive samples in the order in which they were taken, with a bootstrap interval.
/// Neighbours share clock and temperature, so it is runs of neighbours that are drawn
/// (circular blocks, Politis & Romano 1992), and few of them: the interval is widened for that. The same samples give the same interval.
Interval median_interval(std::span<const double> samples);

/// Of the ratios b[i] / a[i], samples that were taken beside one another.
Interval ratio_interval(std::span<const double> a, std::span<const double> b);

enum class Verdict { kFaster, kSlower, kSame, kUndecided };
std::string_view verdict_name(Verdict v);  // "FASTER", ...

/// Fewer samples say nothing.
constexpr int64_t kFewestSamples = 5;
/// Of a ratio of times, candidate to baseline, and of `control`, the baseline against itself. The
/// interval lies within 1 +- margin, and so does the control: the same. It lies outside of that and
/// further from 1 than the control ever is: faster or slower. Else, and where either
/// comes from fewer than kFewestSamples, undecided.
Verdict judge(const Interval& ratio, const Interval& control, double margin);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_STATISTICS_H_
