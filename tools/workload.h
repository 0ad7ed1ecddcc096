/// The workloads of vlr bench: what they hold, what they cost, and one run of them as the engine
/// would do it.
#ifndef VLR_TOOLS_WORKLOAD_H_
#define VLR_TOOLS_WORKLOAD_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/passes/model_runner.h"
#include "engine/placement/memory_planner.h"
#include "model/config.h"
#include "vlr/status.h"

namespace vlr::tools {

struct WorkloadSpec {
  std::string name;              ///< as in bench/reference_gpu.py
  std::vector<int64_t> lengths;  ///< tokens of every pair, those of its image among them
  bool images = false;           ///< every pair has one of 1280 x 960 pixels; byte i of all their
                                 ///< patches is splitmix64(i) >> 56
  int64_t shared = 0;            ///< leading tokens that are computed once for all pairs

  int64_t pairs() const { return std::ssize(lengths); }
  int64_t tokens() const;
  /// Those that the decoder really runs.
  int64_t tokens_run() const { return tokens() - (shared > 0 ? (pairs() - 1) * shared : 0); }
  int64_t patches() const;
  std::array<int64_t, 3> grid() const;  ///< of every image, in patches
};

/// What --workload takes.
std::span<const std::string> workload_names();
/// text100 stands for two: with its prefix computed once, unless not `share_prefix`, and with every
/// pair whole.
std::vector<WorkloadSpec> workloads_of(const std::string& name, bool share_prefix);

/// The model's own operations on every token of every pair, causal attention half: what is shared
/// counts for each, what an engine does not have to compute counts too.
double model_flops(const WorkloadSpec& spec, const ModelConfig& config);

/// Inputs of a workload: random, but always the same. Keeps references to runner and config.
class Work {
 public:
  static Result<Work> create(WorkloadSpec spec, const ModelConfig& config, ModelRunner& runner,
                             const BatchLimits& limits);

  /// Why it cannot run with these limits; kOutOfMemory.
  Status fits() const;

  /// From token ids and pixels to log-odds, one a pair: the tower, the shared prefix, then packed
  /// batches, the next one being prepared while a GPU works on the last.
  Result<std::vector<float>> run();

  const WorkloadSpec& spec() const { return spec_; }
  std::span<const int32_t> ids(int64_t pair) const {
    return sequences_[static_cast<size_t>(pair)].ids;
  }

 private:
  struct Sequence {
    std::vector<int32_t> ids, positions, visual_rows;  // [S], [3, S], [S]
  };
  Work(WorkloadSpec spec, ModelRunner& runner, const BatchLimits& limits)
      : spec_(std::move(spec)), runner_(&runner), limits_(limits) {}
  /// Tokens [first, first + count) of a sequence.
  static TextInput input(const Sequence& s, int64_t first, int64_t count);

  WorkloadSpec spec_;
  ModelRunner* runner_;
  BatchLimits limits_;
  std::vector<Sequence> sequences_;
  std::vector<uint8_t> pixels_;  // [patches, patch_dim]
  std::vector<VisionInput> images_;
  VisionFeatures features_;
};

}  // namespace vlr::tools

#endif  // VLR_TOOLS_WORKLOAD_H_
