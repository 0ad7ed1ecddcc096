#include "engine/scheduling/vision_key.h"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/passes/pass_runner.h"
#include "engine/runtime/purposes.h"
#include "engine/runtime/safetensors.h"
#include "model/weight_plan.h"

namespace vlr {

Result<Hash128> vision_key(const std::string& folder, bool exact, Replica& replica) {
  ModelRunner& runner = replica.runner();
  OpenDevice& device = replica.device();
  VLR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(folder));
  Hasher hasher;
  hasher.add(std::string_view(VLR_VERSION))
      .add(std::string_view(dtype_name(runner.dtype())))
      .add(exact);
  for (const auto& [stored_name, tensor] : checkpoint.tensors()) {
    const std::string name = canonical_name(stored_name);
    if (name.find("visual.") == std::string::npos) continue;
    hasher.add(std::string_view(name))
        .add(std::span(tensor.data, static_cast<size_t>(tensor.bytes())));
  }
  constexpr int64_t kRows = 8, kColumns = 12;  // patches
  std::vector<uint8_t> noise(kRows * kColumns * kPatchValues);
  uint32_t state = 1;
  for (uint8_t& v : noise) {
    state = state * 1664525 + 1013904223;  // Numerical Recipes' generator
    v = static_cast<uint8_t>(state >> 24);
  }
  VisionFeatures features;
  const VisionInput input{.grid_t = 1, .grid_h = kRows, .grid_w = kColumns, .patches = noise};
  {
    const ObserverScope unobserved(runner.passes(), {});
    VLR_RETURN_IF_ERROR(runner.run_vision({&input, 1}, replica.limits().patches, features).error());
  }
  Buffer host = device.staging(purposes::kFeatures);
  const int64_t feature_bytes = features.rows * runner.feature_row_bytes();
  VLR_RETURN_IF_ERROR(host.reserve(feature_bytes));
  const std::span<std::byte> bytes = host.bytes().first(static_cast<size_t>(feature_bytes));
  VLR_RETURN_IF_ERROR(runner.save_features(features, 0, features.rows, {&bytes, 1}));
  VLR_RETURN_IF_ERROR(device.synchronize());
  return hasher.add(bytes).digest();
}

}  // namespace vlr
