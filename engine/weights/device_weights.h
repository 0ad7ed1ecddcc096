/// Weights where a GPU reads them: in its memory, in pinned memory of the host, or on their way
/// between the two.
#ifndef VLR_ENGINE_WEIGHTS_DEVICE_WEIGHTS_H_
#define VLR_ENGINE_WEIGHTS_DEVICE_WEIGHTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/weights/offload_folder.h"
#include "engine/weights/weight_maker.h"
#include "model/weight_plan.h"
#include "vlr/status.h"

namespace vlr {

/// Weights in one block of a device's memory, the dense ones all in one dtype. Immutable once made.
class DeviceWeights {
 public:
  /// Copies the plan's weights from a checkpoint, converting them on the way where they are stored
  /// in another dtype. A value that an f16 cannot hold is kInvalidArgument and names its tensor. A
  /// file that is truncated or changed while it is read is kDataLoss and named. Groups on disk are
  /// written to the offload folder unless they are there, one at a time through memory of the host;
  /// the errors of OffloadFolder; kInvalidArgument: no folder is given.
  static Result<DeviceWeights> load(const Checkpoint& checkpoint, const WeightPlan& plan,
                                    DType dtype, OpenDevice& device,
                                    WeightLoading* loading = nullptr);

  /// Writes a weight, dense, where it is to stand, in stream order. One that is to be quantised is
  /// written to memory that is given back, and quantised on the host. Null: places are taken and
  /// nothing is written, for planning.
  using Fill = std::function<Status(const WeightSpec& spec, const Tensor& weight)>;
  static Result<DeviceWeights> make(const WeightPlan& plan, DType dtype, OpenDevice& device,
                                    const Fill& fill, const std::string& offload_folder = {});

  /// The address of a streamed weight is where it stands while its group is on the device.
  Result<ConstTensor> get(std::string_view name) const;
  int64_t bytes() const { return memory_.size(); }

  /// Weights that are copied to the device together. Groups take turns in two slots of it, each as
  /// large as the largest of its groups.
  struct Group {
    std::string name;
    const std::byte* host = nullptr;    ///< all of the group's bytes, pinned; null: on disk
    std::unique_ptr<OffloadBlob> blob;  ///< all of the group's bytes on disk; null: in host memory
    int64_t bytes = 0;
    int slot = 0;
  };
  const std::vector<Group>& groups() const { return groups_; }
  std::byte* slot(int s) const { return memory_.data() + slot_offsets_[static_cast<size_t>(s)]; }
  int group_of(std::string_view name) const;  ///< index of a tensor's group; -1: it has none
  const Fingerprints& fingerprints() const { return fingerprints_; }

 private:
  class Placer;
  class DiskGroups;
  Buffer memory_, host_memory_;  // resident weights, then two slots; weights of the host, groups
  std::array<int64_t, 2> slot_offsets_{};
  std::vector<Group> groups_;
  std::map<std::string, ConstTensor, std::less<>> tensors_;
  std::map<std::string, int, std::less<>> group_of_;
  Fingerprints fingerprints_;
};

/// Pinned buffers of the host through which groups come from disk.
struct DiskRing {
  int64_t buffers = 0, buffer_bytes = 0;
  int64_t bytes() const { return buffers > 0 ? buffers * buffer_bytes + kReadAlignment : 0; }
};
DiskRing disk_ring(int64_t num_groups, int64_t largest_bytes);

/// Bytes of DeviceWeights: on the device, in pinned memory of the host, and on disk.
struct DeviceWeightBytes {
  int64_t device = 0;     ///< resident weights and the slots of streamed ones
  int64_t host = 0;       ///< weights that are read over the bus
  int64_t streamed = 0;   ///< weights that are copied, in host memory
  int64_t disk = 0;       ///< weights that are copied, on disk
  int64_t disk_ring = 0;  ///< what they come through, in host memory
  int64_t slots = 0;      ///< of device: the two slots together
};
DeviceWeightBytes device_weight_bytes(const WeightPlan& plan, DType dtype);

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_DEVICE_WEIGHTS_H_
