/// The value rule of the tiny model whose expected activations the model's tests hold: 4 layers
/// each, hidden sizes 48 and 64. It is not the rule of model/synthetic.h, though both start from
/// the same hash.
#ifndef VLR_TESTS_SUPPORT_APPENDIX_D_H_
#define VLR_TESTS_SUPPORT_APPENDIX_D_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/synthetic.h"

namespace vlr::testing {

/// Elements of the tensor `name` in f32, row-major; all but the pixels are exact in bf16.
///   z = splitmix64(fnv1a64(name) + i)
///   "...norm...weight"                    1 + (z >> 61) / 32
///   pixel_values, pixel_values_videos     ((z >> 56) - 127.5) / 127.5
///   else                                  ((z >> 57) / 64 - 1) / 16
inline std::vector<float> appendix_d_values(std::string_view name,
                                            const std::vector<int64_t>& shape) {
  int64_t numel = 1;
  for (const int64_t d : shape) numel *= d;
  const bool is_norm = name.find("norm") != name.npos && name.ends_with("weight");
  const bool is_pixels = name == "pixel_values" || name == "pixel_values_videos";
  std::vector<float> values(static_cast<size_t>(numel));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t z = splitmix64(fnv1a64(name) + i);
    if (is_norm) {
      values[i] = 1 + static_cast<float>(z >> 61) / 32;
    } else if (is_pixels) {
      values[i] = (static_cast<float>(z >> 56) - 127.5f) / 127.5f;
    } else {
      values[i] = (static_cast<float>(z >> 57) / 64 - 1) / 16;
    }
  }
  return values;
}

inline ModelConfig appendix_d_config() {
  ModelConfig c;
  c.text_config = {.vocab_size = 128,
                   .hidden_size = 64,
                   .intermediate_size = 96,
                   .num_hidden_layers = 4,
                   .num_attention_heads = 4,
                   .num_key_value_heads = 2,
                   .head_dim = 32,
                   .max_position_embeddings = 262144,
                   .rms_norm_eps = 1e-6,
                   .rope_theta = 5e6,
                   .mrope_section = {6, 5, 5}};
  c.vision_config = VisionConfig{.depth = 4,
                                 .hidden_size = 48,
                                 .intermediate_size = 80,
                                 .num_heads = 3,
                                 .in_channels = 3,
                                 .patch_size = 16,
                                 .temporal_patch_size = 2,
                                 .spatial_merge_size = 2,
                                 .out_hidden_size = 64,
                                 .num_position_embeddings = 36,
                                 .deepstack_visual_indexes = {0, 1, 3}};
  c.tie_word_embeddings = true;
  c.image_token_id = 120;
  c.video_token_id = 121;
  c.vision_start_token_id = 118;
  c.vision_end_token_id = 119;
  return c;
}

/// Token ids whose rows stand for "yes" and "no" in the expected score.
inline constexpr int32_t kAppendixDYes = 5, kAppendixDNo = 7;

}  // namespace vlr::testing

#endif  // VLR_TESTS_SUPPORT_APPENDIX_D_H_
