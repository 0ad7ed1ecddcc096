#include "engine/scheduling/replica.h"

#include <cstdint>
#include <utility>

#include "engine/runtime/purposes.h"

namespace vlr {
namespace {

// Pinned memory for decoded patches that is kept between waves: a wave and a chunk of the largest
// pictures take half of it, and one wave is decoded while another one is on the GPU.
constexpr int64_t kKeptPatchBytes = int64_t{512} << 20;

}  // namespace

Result<std::unique_ptr<Replica>> Replica::open(const Task& task, ModelSource source,
                                               Options& options, ThreadPool& threads,
                                               const ImplChoices& choices,
                                               const std::atomic<bool>& cancelled) {
  std::unique_ptr<Replica> out(new Replica);
  Replica& r = *out;
  VLR_ASSIGN_OR_RETURN(const DeviceSpec spec, DeviceSpec::parse(options.device));
  VLR_ASSIGN_OR_RETURN(r.device_, OpenDevice::open(spec, options.exact, threads, choices));
  VLR_ASSIGN_OR_RETURN(PreparedModel prepared, prepare(std::move(source), options, *r.device_));
  r.preset_ = prepared.preset;
  if (options.log && !r.preset_.empty()) options.log(r.preset_);
  if (options.on_memory) r.watch_ = MemoryWatch::start(*r.device_, options.on_memory);
  VLR_ASSIGN_OR_RETURN(r.model_, LoadedModel::load(options, std::move(prepared), *r.device_,
                                                   {options.on_value, options.wants_value,
                                                    options.on_node, options.on_copy}));
  if (r.watch_) r.watch_->layers(r.model_->layers);
  if (options.log && !options.offload_folder.empty() && r.model_->placed.weights.disk == 0)
    options.log("offload_folder: no layer is on disk; device_map says which are, as in =disk");
  r.scorer_ =
      std::make_unique<WaveScorer>(task, options, r.runner(), r.limits(), threads, cancelled);
  return out;
}

Replica::~Replica() {
  if (device_) (void)device_->activate();  // what goes away is this device's
}

PatchMemory Replica::patch_memory() {
  if (!patches_) patches_.emplace(*device_, purposes::kPatches, kKeptPatchBytes);
  return [this](size_t bytes) -> std::shared_ptr<uint8_t[]> {
    if (auto pinned = patches_->take(bytes)) return pinned;
    return std::make_unique_for_overwrite<uint8_t[]>(bytes);  // copies then wait for the device
  };
}

}  // namespace vlr
