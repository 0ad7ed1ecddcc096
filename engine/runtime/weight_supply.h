/// Weights that are brought to a device while a graph runs, as the executor asks for them.
#ifndef VLR_ENGINE_RUNTIME_WEIGHT_SUPPLY_H_
#define VLR_ENGINE_RUNTIME_WEIGHT_SUPPLY_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "vlr/status.h"

namespace vlr {

/// Groups of weights that are on the device together, by number. One thread at a time.
class WeightSupply {
 public:
  virtual ~WeightSupply() = default;

  /// The group that a weight belongs to; -1: it stays on the device.
  virtual int group_of(std::string_view weight) const = 0;
  /// What a run will need, in order: its first groups are on their way from now on.
  virtual Status begin(std::span<const int> groups) = 0;
  /// Nodes that are launched from now on may read the group.
  virtual Status need(int group) = 0;
  /// Nodes that were launched so far were the last ones to read it; `rest` is needed from now on,
  /// in order.
  virtual Status done(int group, std::span<const int> rest) = 0;

  /// A copy, in the copies' own order.
  struct TimedCopy {
    std::string_view name;  ///< of the group
    int64_t bytes = 0;
    OpenDevice::Mark begun;
    std::shared_ptr<const OpenDevice::Mark> arrived;
  };
  /// Whether copies are timed from now on; those that were so far.
  virtual std::vector<TimedCopy> time_copies(bool on) = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_WEIGHT_SUPPLY_H_
