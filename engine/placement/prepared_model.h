/// A model that is described in full, before anything of it is loaded: from a folder, its config or
/// made up, and from options, to what is computed on a device and in which formats. Opening,
/// planning and measuring a model all start here.
#ifndef VLR_ENGINE_PLACEMENT_PREPARED_MODEL_H_
#define VLR_ENGINE_PLACEMENT_PREPARED_MODEL_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/safetensors.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "model/quantization.h"
#include "model/weight_plan.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// What a checkpoint's folder holds, before anything is made of it. Opening, planning, inspecting and
/// quantising a folder all begin here, and refuse by name what vlr does not read: other formats of
/// files and of weights, an adapter beside the model, files that were not fetched.
struct ModelFolder {
  enum class Weights : uint8_t { kNeeded, kIfThere };
  static Result<ModelFolder> open(const std::string& path, Weights weights);

  std::string path = {};
  ModelConfig config = {};
  StoredQuantization stored = {};
  std::optional<Checkpoint> checkpoint = {};  ///< none: no weights are there, and none are needed
};

/// What a model is, and where its weights come from.
struct ModelSource {
  /// Writes a weight to memory of a GPU, as DeviceWeights::Fill.
  using Fill = std::function<Status(const WeightSpec&, const Tensor& to, Context&)>;
  using Log = std::function<void(std::string_view)>;

  /// A checkpoint's files. Tensors that the model does not use are logged.
  static Result<ModelSource> of_folder(ModelFolder folder, HeadTokens head, const Log& log = {});
  /// Shapes and formats alone, to plan with: those of the files if they are there, else what
  /// config.json says.
  static Result<ModelSource> of_shapes(ModelFolder folder);
  /// Weights made from their names.
  static Result<ModelSource> synthetic(ModelConfig config, HeadTokens head, Fill fill);

  ModelConfig config;
  WeightPlan plan = {};
  StoredQuantization stored = {};
  std::optional<Checkpoint> checkpoint = {};
  ReadOptions read = {};  ///< how its bytes are read
  Fill fill = {};         ///< without a checkpoint, on a GPU; null: to plan with
};

struct PreparedModel {
  ModelSource source;             ///< its plan has the formats that weights will have
  GraphOptions graph = {};        ///< with the dtype of activations and the modes of weights
  bool stored_quantized = false;  ///< some weight was quantised before
  std::string preset = {};        ///< what Options::preset set and why; empty: none
};

/// What the options mean for this model on this device, a preset among it: the options become what
/// it sets.
Result<PreparedModel> prepare(ModelSource source, Options& options, OpenDevice& device);

/// What the options say of quantisation, as rules.
Result<std::vector<QuantRule>> quant_rules(const Options& options);

/// Whether some weight of a plan was quantised before.
bool stored_quantized(const WeightPlan& plan);

/// Modes and formats of a plan's weights.
Result<QuantModes> prepare_plan(WeightPlan& plan, const Options& options,
                                const StoredQuantization& stored);

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_PREPARED_MODEL_H_
