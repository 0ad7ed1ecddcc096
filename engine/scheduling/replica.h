/// One device with everything on it: the loaded model, its passes, the prefixes that it keeps and
/// the pinned memory beside it. What a Reranker has besides belongs to no device.
#ifndef VLR_ENGINE_SCHEDULING_REPLICA_H_
#define VLR_ENGINE_SCHEDULING_REPLICA_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "engine/passes/model_runner.h"
#include "engine/placement/loaded_model.h"
#include "engine/placement/memory_watch.h"
#include "engine/placement/prepared_model.h"
#include "engine/runtime/device.h"
#include "engine/runtime/host_pool.h"
#include "engine/scheduling/wave_scorer.h"
#include "engine/tasks/task.h"
#include "kernels/core/thread_pool.h"
#include "multimodal/media.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// One thread at a time.
class Replica {
 public:
  /// Opens the device of the options, prepares the model for it and loads it. The options become
  /// what their preset says. All but `source` must outlive the replica.
  static Result<std::unique_ptr<Replica>> open(const Task& task, ModelSource source,
                                               Options& options, ThreadPool& threads,
                                               const ImplChoices& choices,
                                               const std::atomic<bool>& cancelled);
  ~Replica();

  OpenDevice& device() { return *device_; }
  const OpenDevice& device() const { return *device_; }
  LoadedModel& model() { return *model_; }
  const LoadedModel& model() const { return *model_; }
  ModelRunner& runner() { return *model_->runner; }
  const BatchLimits& limits() const { return model_->placed.limits; }
  WaveScorer& scorer() { return *scorer_; }
  const std::string& preset() const { return preset_; }  ///< PreparedModel::preset

  /// Where decoded patches are to stand: counted, and on a GPU read without the host's waiting. The
  /// replica must outlive it and what it gives.
  PatchMemory patch_memory();

  /// From now on what changes in memory belongs to scoring.
  void opened() {
    if (watch_) watch_->set_phase(MemoryEvent::Phase::kScore);
  }

 private:
  Replica() = default;

  // What stands below uses what stands above it.
  std::unique_ptr<OpenDevice> device_;
  std::shared_ptr<MemoryWatch> watch_;  // null: nobody asked
  std::string preset_;
  std::optional<HostPool> patches_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<WaveScorer> scorer_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_REPLICA_H_
