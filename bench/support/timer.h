/// Time of launches, on the host and on a GPU, in windows of a millisecond or more.
#ifndef VLR_BENCH_SUPPORT_TIMER_H_
#define VLR_BENCH_SUPPORT_TIMER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "vlr/status.h"

namespace vlr::bench {

/// One launch, on one of the sets of operands that a subject rotates among.
using Launch = std::function<Status(int64_t set)>;

/// Launches of one kind that are timed together: whole rounds of all sets.
class Window {
 public:
  virtual ~Window() = default;
  int64_t launches = 0;
  int64_t round = 1;   ///< launches of the shortest window there may be: once all sets
  double seconds = 0;  ///< of one launch, roughly: the least of some runs

  /// Seconds of the whole, if a launch takes so long.
  double duration(double launch) const { return launch * static_cast<double>(launches); }
};

class Timer {
 public:
  virtual ~Timer() = default;
  /// So many launches, whole rounds of `num_sets`.
  virtual Result<std::unique_ptr<Window>> record(const Launch& launch, int64_t num_sets,
                                                 int64_t launches) = 0;
  /// Runs windows one behind the other, without a gap. Seconds of one launch of each.
  virtual Result<std::vector<double>> run(std::span<const Window* const> windows) = 0;

  /// A window that takes `seconds`, or one round of all sets where that takes longer. How long a
  /// launch takes is measured if it is not `known`, and what disturbs the machine meanwhile makes a
  /// run longer: it is the least of some.
  Result<std::unique_ptr<Window>> make_window(const Launch& launch, int64_t num_sets,
                                              double seconds, double known = 0);

 private:
  Status time(Window& window);  ///< its `seconds`
};

/// Of calls that return when their work is done.
std::unique_ptr<Timer> host_timer();

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_TIMER_H_
