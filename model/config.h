/// config.json of a checkpoint, under upstream's key names.
#ifndef VLR_MODEL_CONFIG_H_
#define VLR_MODEL_CONFIG_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr {

/// text_config. hidden_act is silu, attention_bias false, mrope interleaved: parse_config()
/// accepts nothing else, so they are not kept.
struct TextConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;  ///< independent of hidden_size / num_attention_heads
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 0;
  double rope_theta = 0;
  std::array<int64_t, 3> mrope_section{};  ///< rotary pairs of T, H, W; together head_dim / 2

  bool operator==(const TextConfig&) const = default;
};

/// vision_config. hidden_act is gelu_pytorch_tanh, in the blocks; the mergers use the erf form.
struct VisionConfig {
  int64_t depth = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 0;
  int64_t in_channels = 0;              ///< 3
  int64_t patch_size = 0;               ///< 16
  int64_t temporal_patch_size = 0;      ///< 2
  int64_t spatial_merge_size = 0;       ///< 2
  int64_t out_hidden_size = 0;          ///< the text decoder's hidden_size
  int64_t num_position_embeddings = 0;  ///< a square number
  /// Blocks, ascending, whose output goes through merger K into the text decoder after its layer
  /// K.
  std::vector<int64_t> deepstack_visual_indexes;

  int64_t head_dim() const { return hidden_size / num_heads; }
  /// Values of one patch: 1536.
  int64_t patch_dim() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
  /// A block of patches becomes one token, which is one row of the features.
  int64_t patches_per_token() const { return spatial_merge_size * spatial_merge_size; }
  /// Width of a token's patches side by side, the mergers' input.
  int64_t merged_size() const { return hidden_size * patches_per_token(); }

  bool operator==(const VisionConfig&) const = default;
};

struct ModelConfig {
  TextConfig text_config;
  std::optional<VisionConfig> vision_config;  ///< none in text-only extractions
  bool tie_word_embeddings = false;           ///< lm_head is embed_tokens
  std::optional<DType> dtype;                 ///< as declared; the files' own dtypes decide
  int32_t image_token_id = 151655;
  int32_t video_token_id = 151656;
  int32_t vision_start_token_id = 151652;
  int32_t vision_end_token_id = 151653;

  bool operator==(const ModelConfig&) const = default;
};

/// Reads the text of a config.json: the layouts of transformers 4.57 (rope_theta, rope_scaling,
/// torch_dtype) and 5 (rope_parameters, dtype), and text-only ones with text_config's keys on top.
/// What it returns is consistent and within sane bounds, so sizes may be multiplied without
/// overflow checks. kDataLoss: no JSON object; kInvalidArgument: a value is missing or wrong;
/// kUnimplemented: another model, or a feature of this one that vlr does not have.
Result<ModelConfig> parse_config(std::string_view json);

/// parse_config() of a file; kNotFound if there is none.
Result<ModelConfig> read_config(const std::string& path);

/// The text of a config.json that parse_config() and transformers (4.57 and 5) read back as
/// `config`.
std::string format_config(const ModelConfig& config);

}  // namespace vlr

#endif  // VLR_MODEL_CONFIG_H_
