#include "tools/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>

#include "bench/support/machine.h"
#include "engine/runtime/device.h"
#include "kernels/core/thread_pool.h"

namespace vlr::tools {

Result<Machine> Machine::open(const Options& options, bool measure_peaks) {
  VLR_ASSIGN_OR_RETURN(const DeviceSpec spec, DeviceSpec::parse(options.device));
  Machine m;
  m.context["date"] = bench::date();
  if (spec.kind == Device::kCuda) {
    m.gpu = bench::Gpu::open(spec.index);
    if (!m.gpu)
      return {Code::kDevice, fmt::format("device {}: the GPU cannot be opened", options.device)};
    if (measure_peaks) {
      VLR_ASSIGN_OR_RETURN(m.peak, m.gpu->measure_peak());
    }
    for (const auto& [key, value] : m.gpu->description()) m.context[key] = value;
  } else {
    ThreadPool threads(options.num_threads);
    if (measure_peaks) m.peak = bench::measure_peak(threads);
    m.context["cpu"] = bench::cpu_name();
    m.context["threads"] = std::to_string(threads.num_threads());
  }
  if (measure_peaks) {
    m.context["peak_by"] = m.peak.target;
    m.context["peak_gflops"] = fmt::format("{:.1f}", m.peak.flops * 1e-9);
    m.context["peak_gbytes"] = fmt::format("{:.1f}", m.peak.bytes * 1e-9);
  }
  return m;
}

int64_t Machine::memory_in_use() const {
  if (gpu) return gpu->used_bytes();
  std::ifstream in("/proc/self/statm");
  int64_t all = 0, resident = 0;
  in >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::string Machine::describe_peak() const {
  if (peak.flops <= 0) return "";
  return fmt::format("peaks {:.4g} TFLOP/s, {:.0f} GB/s ({})", peak.flops * 1e-12,
                     peak.bytes * 1e-9, peak.target);
}

}  // namespace vlr::tools
