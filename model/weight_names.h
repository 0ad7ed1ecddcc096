/// The one table of tensor names and shapes, and how a checkpoint's own names map onto it.
#ifndef VLR_MODEL_WEIGHT_NAMES_H_
#define VLR_MODEL_WEIGHT_NAMES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/safetensors.h"
#include "engine/runtime/weight_store.h"
#include "model/config.h"
#include "vlr/status.h"

namespace vlr {

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
  std::vector<std::string> unexpected;   ///< not used; harmless

  /// kNotFound or kInvalidArgument with the first few lines of what cannot be used.
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

#endif  // VLR_MODEL_WEIGHT_NAMES_H_
