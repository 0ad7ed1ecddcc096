#include "engine/weights/group_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <system_error>
#include <utility>

#include "engine/runtime/purposes.h"
#include "kernels/core/clock.h"
#include "kernels/core/thread_start.h"

namespace vlr {
namespace {

// A disk wants several requests at a time; each is a piece of kReadPiece bytes.
constexpr int64_t kMaxThreads = 16;

}  // namespace

Result<std::unique_ptr<GroupReader>> GroupReader::create(
    std::span<const DeviceWeights::Group> groups, OpenDevice& device) {
  std::unique_ptr<GroupReader> r(new GroupReader(groups, device));
  int64_t count = 0, largest = 0, pieces = 0;
  for (const DeviceWeights::Group& g : groups) {
    if (!g.blob) continue;
    ++count;
    largest = std::max(largest, g.bytes);
    pieces = std::max(pieces, g.blob->num_pieces());
  }
  const DiskRing ring = disk_ring(count, largest);
  r->memory_ = device.staging(purposes::kDiskLayers);
  VLR_RETURN_IF_ERROR(r->memory_.reserve(ring.bytes()));
  const auto misfit = static_cast<int64_t>(reinterpret_cast<uintptr_t>(r->memory_.data()) %
                                           uintptr_t{kReadAlignment});
  std::byte* data = r->memory_.data() + (kReadAlignment - misfit) % kReadAlignment;
  r->places_.resize(static_cast<size_t>(ring.buffers));
  for (Place& p : r->places_) {
    p.data = data;
    data += ring.buffer_bytes;
  }
  try {
    const BlockSignals inherited;
    for (int64_t t = 0; t < std::min(kMaxThreads, pieces * ring.buffers); ++t) {
      r->threads_.emplace_back([reader = r.get()] {
        name_thread("vlr-layers");
        reader->work();
      });
    }
  } catch (const std::system_error& e) {
    // Fewer threads do the same.
    if (r->threads_.empty())
      return {Code::kOutOfMemory, fmt::format("a thread to read layers from disk: {}", e.what())};
  }
  return r;
}

GroupReader::~GroupReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    work_.notify_all();
  }
  for (std::thread& t : threads_) t.join();
  for (const Place& p : places_) {
    if (p.copied) (void)device_.wait(*p.copied);
  }
}

GroupReader::Place* GroupReader::holder(int group) {
  const auto it = std::ranges::find(places_, group, &Place::group);
  return it == places_.end() ? nullptr : &*it;
}

/// A place that is to be drained or has a piece that is to be read, of what is wanted first; null:
/// there is nothing to do. A place that holds nothing that is wanted gets the next group.
GroupReader::Place* GroupReader::next_work() {
  for (const int group : wanted_) {
    Place* p = holder(group);
    if (!p) {
      for (Place& place : places_) {
        if (place.taken || place.draining || place.in_flight > 0 ||
            std::ranges::find(wanted_, place.group) != wanted_.end())
          continue;
        if (!p || place.given < p->given) p = &place;
      }
      // Not the next but one instead: it might get what this one waits for.
      if (!p) return nullptr;
      p->group = group;
      p->next = p->done = 0;
      p->status = {};
      p->draining = p->copied != nullptr;
      if (p->draining) return p;
    }
    if (!p->draining && p->status.ok() && p->next < blob_of(*p).num_pieces()) return p;
  }
  return nullptr;
}

void GroupReader::work() {
  PageBuffer bounce;
  const Status active = device_.activate();
  std::unique_lock lock(mutex_);
  for (;;) {
    Place* p = nullptr;
    work_.wait(lock, [&] { return stop_ || (p = next_work()); });
    if (stop_) return;
    Status status = active;
    if (p->draining) {
      const CopyMark copied = p->copied;
      lock.unlock();
      if (status.ok()) status = device_.wait(*copied);
      lock.lock();
      p->draining = false;
      p->copied.reset();
    } else {
      const OffloadBlob& blob = blob_of(*p);
      const int64_t piece = p->next++;
      ++p->in_flight;
      if (in_flight_++ == 0) busy_since_ = seconds_now();
      lock.unlock();
      try {
        if (status.ok()) status = blob.read(piece, p->data, bounce);
      } catch (const std::exception& e) {
        status = {Code::kOutOfMemory, fmt::format("{}: {}", blob.path(), e.what())};
      }
      lock.lock();
      --p->in_flight;
      ++p->done;
      stats_.bytes += blob.piece_bytes(piece);
      if (--in_flight_ == 0) stats_.reading_seconds += seconds_now() - busy_since_;
    }
    if (!status.ok()) p->status = std::move(status);
    work_.notify_all();
    read_.notify_all();
  }
}

void GroupReader::want(std::span<const int> groups) {
  const std::lock_guard lock(mutex_);
  wanted_.clear();
  for (const int g : groups) {
    if (wanted_.size() == places_.size()) break;
    if (std::ranges::find(wanted_, g) == wanted_.end()) wanted_.push_back(g);
  }
  work_.notify_all();
}

bool GroupReader::ready(int group) {
  const std::lock_guard lock(mutex_);
  const Place* const p = holder(group);
  return p && !p->draining && p->status.ok() && complete(*p);
}

Result<const std::byte*> GroupReader::take(int group) {
  std::unique_lock lock(mutex_);
  // First of all now.
  std::erase(wanted_, group);
  wanted_.insert(wanted_.begin(), group);
  if (wanted_.size() > places_.size()) wanted_.pop_back();
  work_.notify_all();
  Place* p = nullptr;
  const double start = seconds_now();
  read_.wait(lock, [&] {
    p = holder(group);
    return p && !p->draining && p->in_flight == 0 && (!p->status.ok() || complete(*p));
  });
  stats_.waiting_seconds += seconds_now() - start;
  std::erase(wanted_, group);
  if (!p->status.ok()) {
    p->group = -1;
    return std::exchange(p->status, {});
  }
  p->taken = true;
  return p->data;
}

void GroupReader::give(int group, CopyMark copied) {
  const std::lock_guard lock(mutex_);
  Place& p = *holder(group);
  p.taken = false;
  p.copied = std::move(copied);
  p.given = ++gives_;
  work_.notify_all();
}

DiskStats GroupReader::stats() {
  const std::lock_guard lock(mutex_);
  DiskStats out = stats_;
  if (in_flight_ > 0) out.reading_seconds += seconds_now() - busy_since_;
  return out;
}

}  // namespace vlr
