/// Reads groups of weights from disk ahead of their use, into a ring of pinned buffers.
///
/// Threads read pieces of the groups that are wanted, in their order, into buffers that hold none
/// of them: the disk is idle only while every buffer is full of what will be needed next. A buffer
/// is filled again when the copy of what was in it is done, for which a thread waits, not the
/// caller.
#ifndef VLR_ENGINE_WEIGHTS_GROUP_READER_H_
#define VLR_ENGINE_WEIGHTS_GROUP_READER_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/file_reader.h"
#include "engine/weights/device_weights.h"
#include "vlr/status.h"

namespace vlr {

/// What reading from disk came to.
struct DiskStats {
  int64_t bytes = 0;
  double reading_seconds = 0;  ///< during which a read was under way
  double waiting_seconds = 0;  ///< for which the caller had to wait
  DiskStats operator-(const DiskStats& o) const {
    return {bytes - o.bytes, reading_seconds - o.reading_seconds,
            waiting_seconds - o.waiting_seconds};
  }
};

/// One thread at a time. Device and groups must outlive it.
class GroupReader {
 public:
  using CopyMark = std::shared_ptr<const OpenDevice::Mark>;

  /// kOutOfMemory: the ring, or its threads.
  static Result<std::unique_ptr<GroupReader>> create(std::span<const DeviceWeights::Group> groups,
                                                     OpenDevice& device);
  /// After the copies from its buffers.
  ~GroupReader();
  GroupReader(const GroupReader&) = delete;
  GroupReader& operator=(const GroupReader&) = delete;

  /// The next groups to take, in order; what was wanted before is not any more. As many as there
  /// are buffers are read; the others count for nothing.
  void want(std::span<const int> groups);
  /// Whether take() would not wait, nor fail.
  bool ready(int group);
  /// Waits until the group is read. Its bytes stay until give(). Errors are those of
  /// OffloadBlob::read(); the next take() tries again.
  Result<const std::byte*> take(int group);
  /// The buffer may be filled again when `copied` is done; null: now.
  void give(int group, CopyMark copied);

  DiskStats stats();

 private:
  struct Place {
    std::byte* data = nullptr;
    int group = -1;              // what is there, or is coming
    int64_t next = 0, done = 0;  // pieces: to be begun, read
    int in_flight = 0;           // pieces that are being read
    bool taken = false;          // between take() and give()
    bool draining = false;       // a thread waits for `copied`
    CopyMark copied;             // what has to be done before it is filled
    int64_t given = 0;           // when, to fill the oldest first
    Status status;
  };

  GroupReader(std::span<const DeviceWeights::Group> groups, OpenDevice& device)
      : groups_(groups), device_(device) {}
  const OffloadBlob& blob_of(const Place& p) const {
    return *groups_[static_cast<size_t>(p.group)].blob;
  }
  bool complete(const Place& p) const { return p.done == blob_of(p).num_pieces(); }
  Place* holder(int group);
  Place* next_work();
  void work();

  std::span<const DeviceWeights::Group> groups_;
  OpenDevice& device_;
  Buffer memory_;

  std::mutex mutex_;  // of what follows
  std::condition_variable work_, read_;
  std::vector<Place> places_;
  std::vector<int> wanted_;
  int64_t gives_ = 0;
  bool stop_ = false;
  DiskStats stats_;
  int in_flight_ = 0;
  double busy_since_ = 0;  ///< seconds_now()

  std::vector<std::thread> threads_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_GROUP_READER_H_
