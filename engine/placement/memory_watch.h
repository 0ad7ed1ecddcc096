/// Tells Options::on_memory what a device's budgets see, and which bytes are whose layer's.
#ifndef VLR_ENGINE_PLACEMENT_MEMORY_WATCH_H_
#define VLR_ENGINE_PLACEMENT_MEMORY_WATCH_H_

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/executor.h"
#include "engine/weights/weight_store.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// "layers.3", "visual.blocks.5", "visual.merger", "embed_tokens": the layer of a weight, named as
/// a device map names it.
std::string section_name(std::string_view weight);

/// Bytes of every layer's weights where they stand, in the order of the plan, and of the slots that
/// streamed ones take turns in. `weights` gives the tensors that the plan's weights became; `dtype`
/// is that of a GPU's dense ones.
Result<std::vector<MemoryPlan::Layer>> layer_bytes(const WeightPlan& plan,
                                                   const WeightLookup& weights, DType dtype,
                                                   Device device);

/// Bytes of a device's purposes and of the host memory beside it, without those that hold none.
MemoryPlan memory_of(const OpenDevice& device);

/// Events for one callback, one at a time; any thread. The device must outlive it.
class MemoryWatch {
 public:
  /// From now on, and until the device is gone, `callback` hears of every change.
  static std::shared_ptr<MemoryWatch> start(OpenDevice& device,
                                            std::function<void(const MemoryEvent&)> callback);

  void layers(const std::vector<MemoryPlan::Layer>& layers);
  void set_phase(MemoryEvent::Phase phase);

 private:
  MemoryWatch(OpenDevice& device, std::function<void(const MemoryEvent&)> callback)
      : device_(device), callback_(std::move(callback)) {}
  void changed(std::string_view purpose);

  OpenDevice& device_;
  std::function<void(const MemoryEvent&)> callback_;
  std::mutex mutex_;
  MemoryEvent::Phase phase_ = MemoryEvent::Phase::kLoad;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_MEMORY_WATCH_H_
