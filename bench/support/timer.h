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
  double seconds = 0;  ///< of one launch, roughly: by which `launches` was chosen
};

class Timer {
 public:
  virtual ~Timer() = default;
  /// A window that takes `seconds`, or one round of all sets where that takes longer. Runs it once
  /// or more, to know.
  virtual Result<std::unique_ptr<Window>> make_window(Launch launch, int64_t num_sets,
                                                      double seconds) = 0;
  /// Runs windows one behind the other, without a gap. Seconds of one launch of each.
  virtual Result<std::vector<double>> run(std::span<const Window* const> windows) = 0;
};

/// Of calls that return when their work is done.
std::unique_ptr<Timer> host_timer();

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_TIMER_H_
