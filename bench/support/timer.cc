#include "bench/support/timer.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace vlr::bench {

Result<std::unique_ptr<Window>> Timer::make_window(const Launch& launch, int64_t num_sets,
                                                   double seconds, double known) {
  VLR_ASSIGN_OR_RETURN(auto window, record(launch, num_sets, num_sets));
  if (known <= 0) {
    VLR_RETURN_IF_ERROR(time(*window));
    known = window->seconds;
  }
  const double round = std::max(known, 1e-9) * static_cast<double>(num_sets);
  const auto rounds = std::max<int64_t>(1, std::llround(seconds / round));
  if (rounds > 1) {
    VLR_ASSIGN_OR_RETURN(window, record(launch, num_sets, rounds * num_sets));
  }
  if (window->seconds <= 0) VLR_RETURN_IF_ERROR(time(*window));
  return window;
}

Status Timer::time(Window& window) {
  std::array<const Window*, 3> runs;
  runs.fill(&window);
  VLR_ASSIGN_OR_RETURN(const std::vector<double> seconds, run(runs));
  window.seconds = std::ranges::min(seconds);
  return {};
}

}  // namespace vlr::bench
