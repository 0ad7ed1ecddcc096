/// Brings groups of weights to the device while others are computed with.
///
/// Two slots of device memory take turns. A group is copied to its slot when the last node that
/// read the slot is done, and a node that reads the group starts when the copy is; the host waits
/// for neither. What a slot holds stays there, so that groups that all fit are copied once. Groups
/// on disk are read ahead in the order in which they will be copied; the host waits only in need(),
/// for a read that is not done.
#ifndef VLR_ENGINE_WEIGHTS_WEIGHT_STREAM_H_
#define VLR_ENGINE_WEIGHTS_WEIGHT_STREAM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/weight_supply.h"
#include "engine/weights/device_weights.h"
#include "engine/weights/group_reader.h"
#include "vlr/status.h"

namespace vlr {

/// One thread at a time. Device and weights must outlive it.
class WeightStream final : public WeightSupply {
 public:
  /// kOutOfMemory: what groups on disk are read to.
  static Result<std::unique_ptr<WeightStream>> create(OpenDevice& device,
                                                      const DeviceWeights& weights);

  /// Waits for copies that are under way: the weights may go after it.
  ~WeightStream() override;
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  int group_of(std::string_view weight) const override { return weights_.group_of(weight); }
  Status begin(std::span<const int> groups) override;
  /// Errors of reading a group are those of OffloadBlob::read().
  Status need(int group) override;
  Status done(int group, std::span<const int> rest) override;
  std::vector<TimedCopy> time_copies(bool on) override {
    timing_ = on;
    return std::exchange(timed_, {});
  }

  int64_t bytes_copied() const { return bytes_copied_; }
  DiskStats disk_stats() const { return reader_ ? reader_->stats() : DiskStats(); }

 private:
  struct Slot {
    int holds = -1;       // the group that is there, or on its way
    int next = -1;        // the group that is to take its place once it is read
    bool waited = false;  // what is launched waits for it already
    GroupReader::CopyMark arrived;
    OpenDevice::Mark unread;  // the last node that read what was there
  };

  WeightStream(OpenDevice& device, const DeviceWeights& weights)
      : device_(device), weights_(weights) {}
  const DeviceWeights::Group& group(int g) const {
    return weights_.groups()[static_cast<size_t>(g)];
  }
  Slot& slot_of(int g) { return slots_[static_cast<size_t>(group(g).slot)]; }
  Status copy(int group);
  Status fetch(int group);
  Status fetch_what_is_read();
  void read_ahead(std::span<const int> groups);

  OpenDevice& device_;
  const DeviceWeights& weights_;
  std::unique_ptr<GroupReader> reader_;  // null: nothing is on disk
  std::array<Slot, 2> slots_;
  std::vector<int> run_;  // what the last run needed
  int64_t bytes_copied_ = 0;
  bool timing_ = false;
  std::vector<TimedCopy> timed_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_WEIGHT_STREAM_H_
