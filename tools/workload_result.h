/// What a workload of vlr bench took, as text and as JSON.
#ifndef VLR_TOOLS_WORKLOAD_RESULT_H_
#define VLR_TOOLS_WORKLOAD_RESULT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench/support/monitor.h"
#include "bench/support/roofline.h"
#include "engine/runtime/device.h"
#include "engine/weights/group_reader.h"
#include "tools/node_times.h"
#include "tools/workload.h"

namespace vlr::tools {

struct WorkloadResult {
  std::string name;  ///< "workload/vlr/bf16/8b/text100", as bench/reference_gpu.py has it
  WorkloadSpec spec;
  double flops = 0;     ///< model_flops()
  bench::Peak peak{};   ///< of the machine; 0: unknown
  bool on_gpu = false;  ///< else on the CPU

  // Runs as a user has them.
  std::vector<double> seconds = {};  ///< of every one, shortest first
  int64_t replayed_batches = 0;      ///< of one
  DiskStats disk = {};               ///< of all
  int64_t peak_bytes = 0;            ///< of the model's memory, from the first run on
  int64_t used_bytes = 0;            ///< after them, of the whole card or of the process
  bench::Readings readings = {};     ///< of the card, while they ran

  // A run with every node timed.
  double observed_seconds = 0, nodes_seconds = 0;  ///< all of it, and of that in nodes
  std::vector<TimeRow> ops = {}, places = {};      ///< of its nodes

  MemoryBudget::Parts memory = {};         ///< bytes by purpose, at the end
  bool same_bits = false, finite = false;  ///< log-odds, of every run and of the first one

  int runs() const { return static_cast<int>(seconds.size()); }
  /// Seconds that this share of the runs does not exceed.
  double at(double share) const;
  double median() const { return at(0.5); }
  double pairs_per_second() const { return static_cast<double>(spec.pairs()) / median(); }
  double tokens_per_second() const { return static_cast<double>(spec.tokens()) / median(); }
  double joules_per_pair() const { return readings.watts / pairs_per_second(); }  ///< 0: unknown
  double tflops_per_second() const { return 1e-12 * flops / median(); }
  double peak_pct() const {
    return 100 * flops / median() / peak.flops;
  }  ///< the peak must be known
};

/// As google-benchmark writes a row, and more.
nlohmann::ordered_json to_json(const WorkloadResult& result);

/// A paragraph and the times of ops.
void print(const WorkloadResult& result);

/// A line each.
void print_table(std::span<const WorkloadResult> results);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_WORKLOAD_RESULT_H_
