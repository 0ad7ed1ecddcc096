/// A model that is described in full, before anything of it is loaded: from a folder, its config or
/// made up, and from options, to what is computed on a device and in which formats. Opening,
/// planning and measuring a model all start here.
#ifndef VLR_ENGINE_PLACEMENT_PREPARED_MODEL_H_
#define VLR_ENGINE_PLACEMENT_PREPARED_MODEL_H_

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

/// What a model is, and where its weights come from.
struct ModelSource {
  /// Writes a weight to memory of a GPU, as DeviceWeights::Fill.
  using Fill = std::function<Status(const WeightSpec&, const Tensor& to, Context&)>;
  using Log = std::function<void(std::string_view)>;

  /// A checkpoint's files. Tensors that the model does not use are logged.
  static Result<ModelSource> of_folder(const std::string& folder, ModelConfig config,
                                       HeadTokens head, const Log& log = {});
  /// Shapes and formats alone, as config.json says: to plan with. Of files, if they are there, their
  /// headers say which tensors can be used where they are.
  static Result<ModelSource> of_config(const std::string& folder, ModelConfig config);
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
