#include "engine/weights/weight_stream.h"

#include <algorithm>
#include <utility>

namespace vlr {

Result<std::unique_ptr<WeightStream>> WeightStream::create(OpenDevice& device,
                                                           const DeviceWeights& weights) {
  std::unique_ptr<WeightStream> s(new WeightStream(device, weights));
  const auto& groups = weights.groups();
  if (std::ranges::any_of(groups, [](const auto& g) { return g.blob != nullptr; })) {
    VLR_ASSIGN_OR_RETURN(s->reader_, GroupReader::create(groups, device));
  }
  return s;
}

WeightStream::~WeightStream() {
  // There is nobody to tell of a device that fails now.
  (void)device_.activate();
  (void)device_.finish_copies();
}

/// To its slot. Waits for the disk.
Status WeightStream::copy(int g) {
  Slot& slot = slot_of(g);
  slot.next = -1;
  if (slot.holds == g) return {};
  const DeviceWeights::Group& from = group(g);
  const std::byte* data = from.host;
  if (from.blob) {
    VLR_ASSIGN_OR_RETURN(data, reader_->take(g));
  }
  slot.holds = -1;  // whatever becomes of the copy
  OpenDevice::Mark begun;
  auto mark = device_.copy_beside(weights_.slot(from.slot), data, from.bytes, slot.unread,
                                  timing_ ? &begun : nullptr);
  if (mark) slot.arrived = std::make_shared<const OpenDevice::Mark>(std::move(mark).value());
  if (from.blob) reader_->give(g, mark ? slot.arrived : nullptr);
  VLR_RETURN_IF_ERROR(mark.error());
  if (timing_)
    timed_.push_back({.name = from.name,
                      .bytes = from.bytes,
                      .begun = std::move(begun),
                      .arrived = slot.arrived});
  slot.holds = g;
  slot.waited = false;
  bytes_copied_ += from.bytes;
  return {};
}

/// To its slot, but without waiting for the disk.
Status WeightStream::fetch(int g) {
  Slot& slot = slot_of(g);
  slot.next = -1;
  if (slot.holds == g) return {};
  if (!group(g).blob || reader_->ready(g)) return copy(g);
  slot.next = g;
  return {};
}

Status WeightStream::fetch_what_is_read() {
  for (Slot& slot : slots_) {
    if (slot.next >= 0) VLR_RETURN_IF_ERROR(fetch(slot.next));
  }
  return {};
}

/// The disk's next work is what will be copied from it if `groups` are needed in that order, and
/// then those of the last run again: the next one is most likely like it.
void WeightStream::read_ahead(std::span<const int> groups) {
  if (!reader_) return;
  std::array<int, 2> holds = {slots_[0].holds, slots_[1].holds};
  std::vector<int> reads;
  for (const std::span<const int> needed : {groups, std::span<const int>(run_)}) {
    for (const int g : needed) {
      int& held = holds[static_cast<size_t>(group(g).slot)];
      if (held != g && group(g).blob) reads.push_back(g);
      held = g;
    }
  }
  reader_->want(reads);
}

Status WeightStream::begin(std::span<const int> groups) {
  run_.assign(groups.begin(), groups.end());
  read_ahead(groups);
  // The first group of each slot: a later one would take the place of what is needed before it.
  std::array<bool, 2> taken = {false, false};
  for (Slot& slot : slots_) slot.next = -1;
  for (const int g : groups) {
    bool& slot = taken[static_cast<size_t>(group(g).slot)];
    if (!slot) VLR_RETURN_IF_ERROR(fetch(g));
    slot = true;
  }
  return {};
}

Status WeightStream::need(int g) {
  VLR_RETURN_IF_ERROR(copy(g));
  VLR_RETURN_IF_ERROR(fetch_what_is_read());
  Slot& slot = slot_of(g);
  if (slot.waited) return {};
  slot.waited = true;
  return device_.compute_after(*slot.arrived);
}

Status WeightStream::done(int g, std::span<const int> rest) {
  Slot& slot = slot_of(g);
  VLR_ASSIGN_OR_RETURN(slot.unread, device_.mark());
  const auto next =
      std::ranges::find_if(rest, [&](int other) { return group(other).slot == group(g).slot; });
  if (next != rest.end()) VLR_RETURN_IF_ERROR(fetch(*next));
  VLR_RETURN_IF_ERROR(fetch_what_is_read());
  read_ahead(rest);
  return {};
}

}  // namespace vlr
