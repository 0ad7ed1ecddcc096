/// Features of a wave's images and videos on the device: those that were seen before come from the
/// cache, the others from the vision tower, and the cache keeps them.
#ifndef VLR_ENGINE_SCHEDULING_WAVE_FEATURES_H_
#define VLR_ENGINE_SCHEDULING_WAVE_FEATURES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/passes/model_runner.h"
#include "engine/placement/memory_planner.h"
#include "engine/runtime/device.h"
#include "engine/scheduling/preprocess.h"
#include "engine/scheduling/vision_cache.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// One thread at a time.
class WaveFeatures {
 public:
  /// All must outlive it.
  WaveFeatures(ModelRunner& runner, const BatchLimits& limits, ThreadPool& threads)
      : runner_(runner), device_(runner.device()), limits_(limits), threads_(threads) {}

  /// From now on features are looked up and kept there; null: nowhere.
  void set_cache(VisionCache* cache) { cache_ = cache; }

  /// The rows of every medium of the wave that is `needed`: LoadedMedia::first_row, -1 for others.
  /// The tower's come first, copies of cached ones behind them.
  Status compute(Wave& wave, const std::vector<bool>& needed, Usage& usage);
  /// Writes what compute() kept to the cache's folder, once it is there.
  Status write_to_folder();
  /// Forgets what an unfinished call was about to write.
  void abandon() { unwritten_.clear(); }

  /// Of the last compute().
  const VisionFeatures& rows() const { return features_; }

 private:
  using MediaList = std::vector<LoadedMedia*>;
  struct Sorted {
    MediaList cached, others;
  };
  Sorted look_up(Wave& wave, const std::vector<bool>& needed);
  std::vector<VisionInput> tower_inputs(const MediaList& media, int64_t& rows) const;
  Status keep(const LoadedMedia& media, bool write);

  ModelRunner& runner_;
  OpenDevice& device_;
  const BatchLimits& limits_;
  ThreadPool& threads_;
  VisionCache* cache_ = nullptr;
  VisionFeatures features_;
  struct New {
    Hash128 content;
    std::shared_ptr<const CachedFeatures> features;
  };
  std::vector<New> unwritten_;  // on their way into memory, then to the cache's folder
};

}  // namespace vlr

#endif  // VLR_ENGINE_SCHEDULING_WAVE_FEATURES_H_
