#include "bench/support/monitor.h"

#include <algorithm>
#include <chrono>

#include "bench/support/nvml.h"
#include "kernels/core/clock.h"

namespace vlr::bench {

std::string Readings::reason_names() const { return bench::reason_names(reasons); }

Monitor::Monitor(const Nvml* nvml) : nvml_(nvml) {
  if (nvml_) thread_ = std::thread([this] { watch(); });
}

Readings Monitor::stop() {
  stopped_ = true;
  if (thread_.joinable()) thread_.join();
  return readings_;
}

void Monitor::watch() {
  // Energy between steps of the counter: its value is as old as the last one.
  int64_t first_energy = 0, last_energy = nvml_->millijoules();
  double first_at = 0, last_at = 0, mhz_sum = 0;
  int64_t reads = 0;
  while (!stopped_) {
    if (const int64_t energy = nvml_->millijoules(); energy != last_energy) {
      last_energy = energy;
      last_at = seconds_now();
      if (first_energy == 0) {
        first_energy = energy;
        first_at = last_at;
      }
    }
    if (const int mhz = nvml_->sm_mhz(); mhz > 0) {
      mhz_sum += mhz;
      ++reads;
      readings_.mhz_least = readings_.mhz_least == 0 ? mhz : std::min(readings_.mhz_least, mhz);
    }
    readings_.celsius = std::max(readings_.celsius, nvml_->celsius());
    readings_.reasons |= nvml_->clock_reasons();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  if (reads > 0) readings_.mhz_mean = static_cast<int>(mhz_sum / static_cast<double>(reads));
  // The counter steps every 20 to 100 ms: of less time its figure is off by a fifth.
  constexpr double kLeast = 0.4;
  if (last_at - first_at >= kLeast)
    readings_.watts = static_cast<double>(last_energy - first_energy) * 1e-3 / (last_at - first_at);
}

}  // namespace vlr::bench
