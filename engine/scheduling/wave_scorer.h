/// Scores waves of prepared pairs: pictures go through the vision tower, prefixes that pairs share
/// through the decoder once, then documents in packed batches, all within the limits of the memory
/// plan.
#ifndef VLR_ENGINE_SCHEDULING_WAVE_SCORER_H_
#define VLR_ENGINE_SCHEDULING_WAVE_SCORER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/passes/model_runner.h"
#include "engine/placement/memory_planner.h"
#include "engine/runtime/device.h"
#include "engine/scheduling/prefix_cache.h"
#include "engine/scheduling/preprocess.h"
#include "engine/scheduling/wave_features.h"
#include "engine/tasks/task.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// What scoring of one call adds to, and tells of.
struct ScoringCall {
  Usage& usage;
  std::function<void(Pair&)> on_done;  ///< a pair has its result
};

/// One thread at a time.
class WaveScorer {
 public:
  /// All must outlive it. `cancelled` may be set by any thread.
  WaveScorer(const Task& task, const Options& options, ModelRunner& runner,
             const BatchLimits& limits, ThreadPool& threads, const std::atomic<bool>& cancelled)
      : task_(task),
        options_(options),
        runner_(runner),
        device_(runner.device()),
        limits_(limits),
        cancelled_(cancelled),
        features_(runner, limits, threads) {
    prefix_cache_.reset(limits.prefix_rows);
  }

  /// Scores the wave's pairs whose status says so. On a GPU some results come only with later waves
  /// or with finish(). The call is the same until finish().
  void score(const std::shared_ptr<Wave>& wave, const ScoringCall& call);
  /// Waits for all results, and adds the device's times to the usage.
  Status finish(const ScoringCall& call);
  /// Forgets what an unfinished call has left on the device.
  void abandon();

  /// Of the current group.
  WaveFeatures& features() { return features_; }

 private:
  struct NewPrefix {
    const Pair* pair = nullptr;
    int64_t row = -1;
  };
  std::vector<std::vector<Pair*>> group_pairs(Wave& wave);
  Status run_group(std::shared_ptr<Wave> wave, std::span<Pair*> group);
  Result<std::vector<std::vector<NewPrefix>>> plan_prefixes(std::span<Pair*> group);
  Status run_vision(Wave& wave, std::span<Pair*> group,
                    std::span<const std::vector<NewPrefix>> new_prefixes);
  Status run_prefixes(std::span<const std::vector<NewPrefix>> batches);
  TextInput text_input(const Pair& pair) const;
  Status start_batch(std::shared_ptr<Wave> wave, std::vector<Pair*> batch);
  void finish_oldest();
  void finish_batches() {
    while (!in_flight_.empty()) finish_oldest();
  }
  void report(Pair& pair);
  void report_failed(Pair& pair, DocumentStatus status, std::string message) {
    pair.result.status = status;
    pair.result.message = std::move(message);
    report(pair);
  }

  const Task& task_;
  const Options& options_;
  ModelRunner& runner_;
  OpenDevice& device_;
  const BatchLimits& limits_;
  const std::atomic<bool>& cancelled_;
  const ScoringCall* call_ = nullptr;

  WaveFeatures features_;
  PrefixCache prefix_cache_;
  std::map<std::string, PrefixCache::Entry, std::less<>> shared_;  // of the current group, by key

  /// A batch that was given to the device; its pairs live as long as the wave.
  struct InFlight {
    Ticket ticket;
    std::shared_ptr<Wave> wave;
    std::vector<Pair*> pairs;
  };
  std::deque<InFlight> in_flight_;

  /// Before a group's vision tower, after it, after its last batch.
  struct Timing {
    OpenDevice::Mark start, seen, end;
  };
  std::vector<Timing> timings_;  // since the last finish()
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_WAVE_SCORER_H_
