#include "engine/runtime/weight_stream.h"

#include <algorithm>

namespace vlr {

WeightStream::Slot& WeightStream::slot_of(int group) {
  return slots_[static_cast<size_t>(weights_.groups()[static_cast<size_t>(group)].slot)];
}

Status WeightStream::fetch(int group) {
  Slot& slot = slot_of(group);
  if (slot.holds == group) return {};
  const DeviceWeights::Group& g = weights_.groups()[static_cast<size_t>(group)];
  slot.holds = -1;  // whatever becomes of the copy
  VLR_ASSIGN_OR_RETURN(slot.arrived,
                       device_.copy_beside(weights_.slot(g.slot), g.host, g.bytes, slot.unread));
  slot.holds = group;
  slot.waited = false;
  bytes_copied_ += g.bytes;
  return {};
}

Status WeightStream::begin(std::span<const int> groups) {
  // The first group of each slot: a later one would take the place of what is needed before it.
  std::array<bool, 2> taken = {false, false};
  for (const int g : groups) {
    bool& slot = taken[static_cast<size_t>(&slot_of(g) - slots_.data())];
    if (!slot) VLR_RETURN_IF_ERROR(fetch(g));
    slot = true;
  }
  return {};
}

Status WeightStream::need(int group) {
  VLR_RETURN_IF_ERROR(fetch(group));
  Slot& slot = slot_of(group);
  if (slot.waited) return {};
  slot.waited = true;
  return device_.compute_after(slot.arrived);
}

Status WeightStream::done(int group, std::span<const int> rest) {
  Slot& slot = slot_of(group);
  VLR_ASSIGN_OR_RETURN(slot.unread, device_.mark());
  const auto next =
      std::find_if(rest.begin(), rest.end(), [&](int g) { return &slot_of(g) == &slot; });
  return next == rest.end() ? Status() : fetch(*next);
}

}  // namespace vlr
