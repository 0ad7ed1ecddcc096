#include "engine/placement/memory_watch.h"
#include "engine/weights/device_weights.h"

#include <map>
#include <utility>
#include <vector>

#include "engine/runtime/arena.h"
#include "engine/runtime/purposes.h"

namespace vlr {

std::string section_name(std::string_view weight) {
  for (const std::string_view prefix : {"model.", "language_model."}) {
    if (weight.starts_with(prefix)) weight.remove_prefix(prefix.size());
  }
  size_t end = weight.find('.');
  const auto one_more = [&] {
    if (end != weight.npos) end = weight.find('.', end + 1);
  };
  if (weight.starts_with("visual.")) one_more();
  if (end < weight.size() && weight.find_first_of("0123456789", end) == end + 1) one_more();
  return std::string(weight.substr(0, end));
}

Result<std::vector<MemoryPlan::Layer>> layer_bytes(const WeightPlan& plan,
                                                   const WeightLookup& weights, DType dtype,
                                                   Device device) {
  std::vector<MemoryPlan::Layer> out;
  std::map<std::string, size_t, std::less<>> by_name;
  for (const WeightSpec& spec : plan) {
    int64_t bytes = 0;
    // The dtype is that of the tensors which are there.
    for (const WeightTensor& t : tensors_of(spec, DType::kF32, device)) {
      VLR_ASSIGN_OR_RETURN(const ConstTensor tensor, weights(t.name));
      bytes += device == Device::kCuda ? arena_aligned(tensor.bytes()) : tensor.bytes();
    }
    const std::string name = section_name(spec.name);
    const auto [it, is_new] = by_name.try_emplace(name, out.size());
    if (is_new) out.push_back({.name = name});
    const bool on_device = device == Device::kCuda && spec.place == WeightPlace::kDevice;
    const bool on_disk = device == Device::kCuda && spec.place == WeightPlace::kDisk;
    MemoryPlan::Layer& layer = out[it->second];
    (on_device ? layer.device_bytes : on_disk ? layer.disk_bytes : layer.host_bytes) += bytes;
  }
  const int64_t slots = device == Device::kCuda ? device_weight_bytes(plan, dtype).slots : 0;
  if (slots > 0) out.push_back({.name = "slots of streamed layers", .device_bytes = slots});
  return out;
}

MemoryPlan memory_of(const OpenDevice& device) {
  MemoryPlan out;
  MemoryBudget::Parts on_device = device.budget().parts(), beside = device.host_budget().parts();
  if (!device.is_gpu()) {  // the CPU has one memory
    for (const auto& [name, bytes] : std::exchange(beside, {})) on_device[name] += bytes;
  }
  for (const auto& [name, bytes] : on_device) {
    if (bytes > 0) out.parts.push_back({name, bytes});
  }
  for (const auto& [name, bytes] : beside) {
    if (bytes > 0) out.host_parts.push_back({name, bytes});
  }
  return out;
}

std::shared_ptr<MemoryWatch> MemoryWatch::start(OpenDevice& device,
                                                std::function<void(const MemoryEvent&)> callback) {
  std::shared_ptr<MemoryWatch> watch(new MemoryWatch(device, std::move(callback)));
  const auto changed = [watch](std::string_view purpose) { watch->changed(purpose); };
  device.budget().on_change(changed);
  device.host_budget().on_change(changed);
  return watch;
}

void MemoryWatch::set_phase(MemoryEvent::Phase phase) {
  const std::lock_guard lock(mutex_);
  phase_ = phase;
}

// What is told is read under the lock, so that the last event of a purpose has its last bytes.
void MemoryWatch::changed(std::string_view purpose) {
  const std::lock_guard lock(mutex_);
  callback_({.purpose = purpose,
             .device_bytes = device_.budget().bytes(purpose),
             .host_bytes = device_.host_budget().bytes(purpose),
             .device_total = device_.budget().used(),
             .host_total = device_.host_budget().used(),
             .phase = phase_});
}

void MemoryWatch::layers(const std::vector<MemoryPlan::Layer>& layers) {
  const std::lock_guard lock(mutex_);
  for (const MemoryPlan::Layer& layer : layers) {
    callback_({.purpose = purposes::kWeights,
               .layer = layer.name,
               .device_bytes = layer.device_bytes,
               .host_bytes = layer.host_bytes,
               .device_total = device_.budget().used(),
               .host_total = device_.host_budget().used(),
               .phase = phase_});
  }
}

}  // namespace vlr
