/// How long implementations take, beside one another and by themselves, at the clocks that a machine
/// keeps.
#ifndef VLR_BENCH_SUPPORT_MEASURE_H_
#define VLR_BENCH_SUPPORT_MEASURE_H_

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bench/support/kernel_cost.h"
#include "bench/support/monitor.h"
#include "bench/support/rival.h"
#include "bench/support/statistics.h"
#include "bench/support/subject.h"

namespace vlr::bench {

struct MeasureOptions {
  double settle = 1;         ///< seconds of full duty before samples are taken
  double seconds = 1;        ///< of samples, at most; they end before when `precision` is reached
  double precision = 0.002;  ///< half the width of the 95 % interval of a time or a ratio
  double margin = 0.01;      ///< what counts as the same: see judge()
  bool burst = true;         ///< also 20 ms after the machine was idle
  bool alone = true;         ///< each implementation by itself: clock, power
  double company = 0;        ///< the share of the time that products take between the samples: a
                             ///< GPU's clock is theirs
  bool sass = false;         ///< count the instructions of kernels
  bool profile = false;      ///< one launch of each for a profiler, and no time
};

/// One implementation at one shape.
struct Measured {
  std::string implementation;
  std::string
      error;  ///< not empty: it is wrong, or too fast to be true; what follows may be missing
  Interval seconds;      ///< sustained: of one launch, by itself
  int64_t launches = 0;  ///< of a window
  double burst = 0;      ///< seconds of one launch of the first 20 ms; 0: not measured
  Interval itself;       ///< every other sample against those between: a control that must hold 1
  Readings readings;
  std::optional<Interval> ratio;  ///< its time over the first implementation's, in turns with it
  Verdict verdict = Verdict::kUndecided;
  std::vector<KernelCost> kernels;

  /// Of the figure that has the fewest.
  int64_t samples() const {
    return ratio ? std::min(seconds.samples, ratio->samples) : seconds.samples;
  }
};

/// All of them at one shape. Operands are verified before and after.
struct Measurement {
  std::vector<Measured> rows;
  std::optional<Interval> control;  ///< of the comparison: the first one against itself
  Readings readings;                ///< of the comparison
};

/// Implementations of a rival that has opened the shape.
struct Rivals {
  Rival* rival = nullptr;
  std::vector<std::string> implementations{};
};

/// The first of `implementations` is what the others are compared with, those of rivals among them,
/// A B B A in windows of a millisecond or more. An implementation that fails has its error in its row.
Measurement measure(Machine& machine, Subject& subject, Unit unit,
                    std::span<const std::string> implementations, const MeasureOptions& options,
                    const Rivals& rivals = {});

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_MEASURE_H_
