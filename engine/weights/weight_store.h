/// Weights by name: views into a mapped checkpoint, and tensors put together from several of its
/// rows, perhaps quantised on the way.
///
/// A WeightPlan (model/weight_plan.h) says which tensors there are and where their rows come from.
#ifndef VLR_ENGINE_WEIGHTS_WEIGHT_STORE_H_
#define VLR_ENGINE_WEIGHTS_WEIGHT_STORE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/file_reader.h"
#include "engine/runtime/safetensors.h"
#include "engine/weights/offload_folder.h"
#include "engine/weights/quantized_tensors.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/quantized_weight.h"
#include "model/weight_plan.h"
#include "vlr/status.h"

namespace vlr {

/// What a weight was before it was quantised, times probe_sign(), and which of its rows come from
/// which stored tensor.
struct Fingerprint {
  std::vector<float> values;  ///< [N]
  std::vector<std::pair<std::string, int64_t>> parts;
};
using Fingerprints = std::map<std::string, Fingerprint, std::less<>>;  ///< by name of the weight

/// The dtype that `spec` is stored in: bf16, f16 or f32, the same for all of its parts that are
/// dense (bf16 if none is). Fails if a part is missing (kNotFound) or is not what the spec expects
/// (kInvalidArgument).
Result<DType> check_weight(const WeightSpec& spec, const Checkpoint& checkpoint);

/// How a checkpoint's bytes are read, and what came of it.
struct WeightLoading {
  ReadOptions read = {};
  std::string offload_folder = {};  ///< for weights on disk
  OffloadFolder::System offload_system = {};
  /// Of the bytes that will be read, how many are done, at most ten times a second and at the end.
  std::function<void(int64_t done, int64_t total)> on_progress = {};
  ReadStats stats = {};  ///< set by load()
};

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

/// Owns a checkpoint's mapping and the copies. Immutable after load(), so any thread may read and
/// several engines can share one; views live as long as the store, moved or not.
class WeightStore {
 public:
  /// A weight that is one aligned range of a file becomes a view, whose pages are read when they
  /// are first touched. Any other one (of several parts, unaligned, or quantised) is copied here.
  /// `threads` quantise; null is fine where nothing is quantised. kDataLoss: a file changed.
  static Result<WeightStore> load(Checkpoint checkpoint, const WeightPlan& plan,
                                  ThreadPool* threads = nullptr, WeightLoading* loading = nullptr);

  /// The plan's tensors without data, the dense ones all in one dtype.
  static WeightStore for_planning(const WeightPlan& plan, DType dtype);

  /// The weight on the CPU; kNotFound if the plan had none of that name.
  Result<ConstTensor> get(std::string_view name) const;
  bool contains(std::string_view name) const { return tensors_.contains(name); }
  const std::map<std::string, ConstTensor, std::less<>>& tensors() const { return tensors_; }

  const Fingerprints& fingerprints() const { return fingerprints_; }
  int64_t bytes_owned() const { return bytes_owned_; }    ///< copies, in memory for good
  int64_t bytes_mapped() const { return bytes_mapped_; }  ///< views; the page cache's, reclaimable

 private:
  struct FreeAligned {
    void operator()(std::byte* p) const;
  };
  using Buffer = std::unique_ptr<std::byte, FreeAligned>;  // 64-byte aligned

  Checkpoint checkpoint_;
  std::vector<Buffer> buffers_;
  std::map<std::string, ConstTensor, std::less<>> tensors_;
  Fingerprints fingerprints_;
  int64_t bytes_owned_ = 0;
  int64_t bytes_mapped_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_WEIGHT_STORE_H_
