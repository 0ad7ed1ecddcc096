/// The machine that bench and profile time: what it can do at most, and what a result has to be
/// read with.
#ifndef VLR_TOOLS_MACHINE_H_
#define VLR_TOOLS_MACHINE_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/support/gpu.h"
#include "bench/support/roofline.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr::tools {

struct Machine {
  /// The device of the options. Measuring its peaks takes some seconds and, for a moment, two
  /// gigabytes; without it the peaks are 0.
  static Result<Machine> open(const Options& options, bool measure_peaks);

  std::unique_ptr<bench::Gpu> gpu;  ///< null: the CPU
  bench::Peak peak{};
  nlohmann::ordered_json context;  ///< names, versions, clocks, peaks

  /// Now: of the whole card, by all programs; on the CPU, this process's resident memory.
  int64_t memory_in_use() const;
  /// "peaks 782 TFLOP/s (...), 4.27 TB/s"; empty if they were not measured.
  std::string describe_peak() const;
};

}  // namespace vlr::tools

#endif  // VLR_TOOLS_MACHINE_H_
