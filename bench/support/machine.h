/// What the lab runs on: a GPU, or the host and its threads.
#ifndef VLR_BENCH_SUPPORT_MACHINE_H_
#define VLR_BENCH_SUPPORT_MACHINE_H_

#include <sched.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/gpu.h"
#include "bench/support/roofs.h"
#include "bench/support/timer.h"
#include "kernels/core/thread_pool.h"

namespace vlr::bench {

std::string cpu_name();  ///< "unknown" where the kernel does not tell
std::string date();      ///< now, as ISO 8601 has it, in UTC

class Machine {
 public:
  /// "cpu", "cuda", "cuda:1"; empty: a GPU where there is one. The host's threads, `num_threads` or
  /// one a CPU, are pinned, each to a CPU of its own. Nothing is measured yet.
  static Result<std::unique_ptr<Machine>> open(const std::string& device, int num_threads = 0);

  bool is_gpu() const { return gpu != nullptr; }
  Device device() const { return gpu ? Device::kCuda : Device::kCpu; }
  Timer& timer() { return gpu ? gpu->timer() : *host_timer_; }
  const Nvml* nvml() const { return gpu ? &gpu->nvml() : nullptr; }
  Context context(bool exact) {
    Context ctx;
    if (gpu) ctx = gpu->context(exact);
    ctx.threads = &threads;
    return ctx;
  }
  /// What sets of operands may take: a quarter of what is free now, 16 GiB at most, of the host 1 GiB.
  int64_t bytes_for_sets() const;
  Status finish() { return gpu ? gpu->finish() : Status(); }
  /// Names, versions and clocks that a result has to be read with.
  std::vector<std::pair<std::string, std::string>> description();

  const std::unique_ptr<Gpu> gpu;  ///< null: the host
  ThreadPool threads;
  Roofs roofs;

  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

 private:
  Machine(std::unique_ptr<Gpu> g, int num_threads);
  cpu_set_t before_;  ///< where the caller's thread ran before it was pinned
  std::unique_ptr<Timer> host_timer_ = host_timer();
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_MACHINE_H_
