/// The weights of a model: the one table of tensor names and shapes, how a checkpoint's own names
/// map onto it, and which rows of which stored tensors each weight is made from.
#ifndef VLR_MODEL_WEIGHT_PLAN_H_
#define VLR_MODEL_WEIGHT_PLAN_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"
#include "kernels/quant/formats.h"
#include "model/config.h"
#include "model/stored_tensor.h"
#include "vlr/status.h"

namespace vlr {

/// Rows [first_row, first_row + num_rows) of a stored tensor, a row being one index of its first
/// axis.
struct WeightPart {
  std::string source;          ///< the name in the checkpoint
  std::vector<int64_t> shape;  ///< the shape that it has to have there, of rank 1 or more
  int64_t first_row = 0;
  int64_t num_rows = 0;
  WeightFormat stored = WeightFormat::kDense;  ///< otherwise all rows are taken
  bool aligned = true;        ///< to its dtype, where it is in its file, as writers do
  bool nested_scales = true;  ///< nf4: its scales are quantised themselves
};

/// Where a GPU finds a weight: in its memory; in pinned memory of the host, over the bus; or in its
/// memory, where it is copied before it is needed, from pinned memory or from disk. Or the CPU
/// computes with it, and it is as a WeightStore has it.
enum class WeightPlace : uint8_t { kDevice, kHost, kStreamed, kDisk, kCpuExec };
constexpr bool comes_and_goes(WeightPlace place) {
  return place == WeightPlace::kStreamed || place == WeightPlace::kDisk;
}

/// A weight as the model wants it: the parts' rows, one part after the other.
struct WeightSpec {
  std::string name;
  std::vector<int64_t> shape;  ///< rank <= kMaxRank, with as many elements as the parts together
  std::vector<WeightPart> parts;
  /// Not dense: parts that are stored dense are quantised, others have this format already.
  WeightFormat format = WeightFormat::kDense;
  WeightPlace place = WeightPlace::kDevice;  ///< of a GPU's weights
  /// Of a weight that comes and goes: all weights of a group are on the device at a time, or none.
  std::string group = {};
};

using WeightPlan = std::vector<WeightSpec>;

/// A tensor that a weight becomes in memory, without data.
struct WeightTensor {
  std::string name;
  ConstTensor shape;
};
/// The weight itself; or its codes, and what its format has beside them (kernels/quant/formats.h).
std::vector<WeightTensor> tensors_of(const WeightSpec& spec, DType dtype, Device device);

/// The parts of a weight [N, K] as its format asks about them.
std::vector<FormatPart> format_parts(const WeightSpec& spec);

/// Names that the graphs look up. They are upstream's, but for the tensors that the plan puts
/// together.
namespace weights {
inline constexpr std::string_view kEmbedTokens =
    "model.language_model.embed_tokens.weight";                                    // [V, H]
inline constexpr std::string_view kTextNorm = "model.language_model.norm.weight";  // [H]
inline constexpr std::string_view kTextLayers = "model.language_model.layers.";    // N.<name>
inline constexpr std::string_view kLmHead = "lm_head.weight";                      // [V, H]
/// Rows "yes", "no": [2, H]; from a sequence-classification checkpoint their difference, [1, H].
inline constexpr std::string_view kScoreHead = "score_head.weight";
/// In a layer: rows q | k | v, [(num_attention_heads + 2 * num_key_value_heads) * head_dim, H].
inline constexpr std::string_view kQkvProj = "self_attn.qkv_proj.weight";
/// In a layer: rows gate, then rows up, [2 * intermediate_size, H].
inline constexpr std::string_view kGateUpProj = "mlp.gate_up_proj.weight";
}  // namespace weights

/// Every tensor of a checkpoint with this configuration, in the order of upstream's state_dict,
/// which is what decides how a checkpoint is cut into shards: vision, text, lm_head unless it is
/// tied.
std::vector<NamedShape> checkpoint_tensors(const ModelConfig& config, DType dtype = DType::kBF16);

/// The same as a checkpoint's files would have them, without data.
StoredTensors checkpoint_without_data(const ModelConfig& config, DType dtype = DType::kBF16);

/// The canonical name of a tensor of a checkpoint, whatever tool wrote it: outer prefixes are
/// dropped, vision_tower, language_model.model and missing language_model are understood, score
/// and classifier become "score.weight". Names that are none of ours come back without their outer
/// prefixes.
std::string canonical_name(std::string_view stored);

/// What a checkpoint lacks and has too much of. Lines are ready to be shown.
struct NameReport {
  std::vector<std::string> missing;      ///< "model.visual.pos_embed.weight [2304, 1152]"
  std::vector<std::string> wrong_shape;  ///< "...: expected [2304, 1152], got bf16[2304, 1024]"
  std::vector<std::string> ambiguous;    ///< two stored names for one tensor
  std::vector<std::string> packed;       ///< codes of a weight that is missing, and whose they are
  std::vector<std::string> harmful;      ///< not used, and scores would be others if they were
  std::vector<std::string> unexpected;   ///< not used; harmless

  /// kNotFound, kInvalidArgument or kUnimplemented with the first few lines of what cannot be used.
  Status status() const;
};

NameReport compare_names(const ModelConfig& config, const StoredTensors& stored);

/// The two token ids whose lm_head rows make the score.
struct HeadTokens {
  int32_t yes = 9693;
  int32_t no = 2152;
};

/// Where each weight of the model comes from in this checkpoint: q|k|v and gate|up as one,
/// patch_embed as [h, 1536], two rows of lm_head, or of embed_tokens if the file has no lm_head
/// and tying is declared. The error is that of compare_names().
Result<WeightPlan> make_weight_plan(const ModelConfig& config, const StoredTensors& stored,
                                    HeadTokens tokens = {});

}  // namespace vlr

#endif  // VLR_MODEL_WEIGHT_PLAN_H_
