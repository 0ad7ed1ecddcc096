/// A model opened straight on the model runner, and runs of a workload on it: what bench and lab time.
#ifndef VLR_TOOLS_OPEN_MODEL_H_
#define VLR_TOOLS_OPEN_MODEL_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "engine/passes/model_runner.h"
#include "engine/placement/loaded_model.h"
#include "engine/scheduling/replica.h"
#include "tools/workload.h"
#include "vlr/reranker.h"

namespace vlr::tools {

/// A model and where it runs. What stands below uses what stands above it.
struct OpenModel {
  explicit OpenModel(const Options& o)
      : options(o), threads(o.num_threads), choices(o.impls.begin(), o.impls.end()) {}

  Options options;
  std::string name;  ///< "8b" for a model of that size, else its folder's
  ThreadPool threads;
  ImplChoices choices;
  std::atomic<bool> cancelled{false};
  std::unique_ptr<Replica> replica;
  double load_seconds = 0, measure_seconds = 0;

  LoadedModel& model() const { return replica->model(); }
  ModelRunner& runner() const { return replica->runner(); }
  OpenDevice& device() const { return replica->device(); }
  const BatchLimits& limits() const { return replica->limits(); }

  /// Weights from a folder, or made from their names.
  static Result<std::unique_ptr<OpenModel>> open(const std::string& folder,
                                                 const std::string& preset, const Options& options,
                                                 const ReadOptions& read);
};

/// Runs of a workload by the clock; scores are held against those of the first one.
class ClockedRuns {
 public:
  explicit ClockedRuns(Work& work) : work_(work) {}

  Result<double> run();  ///< one more, in seconds
  /// Of the first run, one a pair.
  const std::vector<float>& log_odds() const { return first_; }
  bool same_bits() const { return same_bits_; }

 private:
  Work& work_;
  std::vector<float> first_;
  bool same_bits_ = true;
};

/// Seconds of the last of the runs after which the next ones are like each other.
Result<double> warm_up(ClockedRuns& runs, bool on_gpu);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_OPEN_MODEL_H_
