/// Brings groups of weights to the device while others are computed with.
///
/// Two slots of device memory take turns. A group is copied to its slot when the last node that
/// read the slot is done, and a node that reads the group starts when the copy is; the host waits
/// for neither. What a slot holds stays there, so that groups that all fit are copied once.
#ifndef VLR_ENGINE_RUNTIME_WEIGHT_STREAM_H_
#define VLR_ENGINE_RUNTIME_WEIGHT_STREAM_H_

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/weight_store.h"
#include "vlr/status.h"

namespace vlr {

/// One thread at a time. Device and weights must outlive it.
class WeightStream {
 public:
  WeightStream(OpenDevice& device, const DeviceWeights& weights)
      : device_(device), weights_(weights) {}

  int group_of(std::string_view weight) const { return weights_.group_of(weight); }

  /// What a run will need, in order: its first groups are on their way from now on.
  Status begin(std::span<const int> groups);
  /// Nodes that are launched from now on may read the group.
  Status need(int group);
  /// Nodes that were launched so far were the last ones to read it; `rest` is needed from now on,
  /// in order.
  Status done(int group, std::span<const int> rest);

  int64_t bytes_copied() const { return bytes_copied_; }

 private:
  struct Slot {
    int holds = -1;                    // the group that is there, or on its way
    bool waited = false;               // what is launched waits for it already
    OpenDevice::Mark arrived, unread;  // its copy; the last node that read what was there
  };
  Slot& slot_of(int group);
  Status fetch(int group);

  OpenDevice& device_;
  const DeviceWeights& weights_;
  std::array<Slot, 2> slots_;
  int64_t bytes_copied_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_WEIGHT_STREAM_H_
