/// Watches a GPU while something runs on it.
#ifndef VLR_BENCH_SUPPORT_MONITOR_H_
#define VLR_BENCH_SUPPORT_MONITOR_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace vlr::bench {

class Nvml;

/// What was read while a monitor watched. 0: unknown.
struct Readings {
  int mhz_least = 0, mhz_mean = 0;  ///< of the SMs
  int celsius = 0;                  ///< at most
  double watts = 0;      ///< by the energy counter, between two of its steps; of half a second on
  uint64_t reasons = 0;  ///< why the clock was not higher, any of the time

  std::string reason_names() const;
};

/// Reads every few milliseconds, on a thread of its own, from here until stop().
class Monitor {
 public:
  explicit Monitor(const Nvml* nvml);  ///< null: nothing is known
  ~Monitor() { stop(); }
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;
  Readings stop();

 private:
  void watch();

  const Nvml* nvml_;
  std::atomic<bool> stopped_ = false;
  Readings readings_;
  std::thread thread_;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_MONITOR_H_
