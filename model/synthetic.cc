#include "model/synthetic.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>
#include <vector>

#include "kernels/core/tensor.h"
#include "model/weight_plan.h"

#if VLR_WITH_CUDA
#include "kernels/cuda/synthetic_fill.h"
#endif

namespace vlr {
namespace {

constexpr int64_t kMegabyte = 1'000'000;

struct Preset {
  std::string_view name;
  ModelConfig config;
  int64_t max_shard_bytes;
};

TextConfig text_config(int64_t hidden_size, int64_t intermediate_size, int64_t layers,
                       int64_t heads, int64_t kv_heads, int64_t vocab_size) {
  return {.vocab_size = vocab_size,
          .hidden_size = hidden_size,
          .intermediate_size = intermediate_size,
          .num_hidden_layers = layers,
          .num_attention_heads = heads,
          .num_key_value_heads = kv_heads,
          .head_dim = 128,
          .max_position_embeddings = 262144,
          .rms_norm_eps = 1e-6,
          .rope_theta = 5e6,
          .mrope_section = {24, 20, 20}};
}

VisionConfig vision_config(int64_t depth, int64_t hidden_size, int64_t intermediate_size,
                           int64_t heads, int64_t out_hidden_size, std::vector<int64_t> deepstack) {
  return {.depth = depth,
          .hidden_size = hidden_size,
          .intermediate_size = intermediate_size,
          .num_heads = heads,
          .in_channels = 3,
          .patch_size = 16,
          .temporal_patch_size = 2,
          .spatial_merge_size = 2,
          .out_hidden_size = out_hidden_size,
          .num_position_embeddings = 2304,
          .deepstack_visual_indexes = std::move(deepstack)};
}

ModelConfig model_config(TextConfig text, VisionConfig vision, bool tied) {
  ModelConfig c;
  c.text_config = std::move(text);
  c.vision_config = std::move(vision);
  c.tie_word_embeddings = tied;
  c.dtype = DType::kBF16;
  return c;
}

/// The token ids of the 16,128-entry tokenizer that the small presets share.
ModelConfig with_small_vocabulary(ModelConfig c) {
  c.image_token_id = 16012;
  c.video_token_id = 16013;
  c.vision_start_token_id = 16009;
  c.vision_end_token_id = 16010;
  return c;
}

Result<Preset> find_preset(std::string_view name) {
  if (name == "8b") {
    return Preset{name,
                  model_config(text_config(4096, 12288, 36, 32, 8, 151936),
                               vision_config(27, 1152, 4304, 16, 4096, {8, 16, 24}), false),
                  5000 * kMegabyte};
  }
  if (name == "2b") {
    return Preset{name,
                  model_config(text_config(2048, 6144, 28, 16, 8, 151936),
                               vision_config(24, 1024, 4096, 16, 2048, {5, 11, 17}), true),
                  5000 * kMegabyte};
  }
  if (name == "a") {
    return Preset{
        name,
        with_small_vocabulary(model_config(text_config(128, 384, 5, 4, 1, 16128),
                                           vision_config(5, 144, 336, 2, 128, {0, 2, 3}), false)),
        9 * kMegabyte};
  }
  if (name == "b") {
    return Preset{
        name,
        with_small_vocabulary(model_config(text_config(192, 448, 4, 2, 1, 16128),
                                           vision_config(4, 128, 320, 2, 192, {0, 1, 2}), true)),
        5000 * kMegabyte};
  }
  return {Code::kInvalidArgument, fmt::format("preset must be 2b, 8b, a or b, got '{}'", name)};
}

}  // namespace

SyntheticTensor synthetic_tensor(std::string_view name, std::span<const int64_t> shape,
                                 DType dtype) {
  const auto has = [&](std::string_view part) { return name.find(part) != name.npos; };
  const auto bits = [&](float v) { return dtype == DType::kF16 ? f32_to_f16(v) : f32_to_bf16(v); };
  SyntheticTensor tensor;
  tensor.base = fnv1a64(name);
  if (has("norm") && name.ends_with("weight")) {
    tensor.shift = 61;
    for (size_t k = 0; k < 8; ++k) tensor.values[k] = bits(1 + static_cast<float>(k) / 32);
    return tensor;
  }
  float scale = 1;
  if (name.ends_with("bias")) {
    scale = 1.0f / 8;
  } else if (has("embed_tokens") || name == weights::kLmHead) {
    scale = 1.0f / 4;
  } else if (!has("pos_embed")) {
    int64_t fan_in = 1;
    for (size_t i = 1; i < shape.size(); ++i) fan_in *= shape[i];
    // nearbyint: a fan_in of 3 * 2^odd lies half-way, and the definition rounds to even.
    const double exponent = std::nearbyint(std::log2(std::sqrt(3.0 / static_cast<double>(fan_in))));
    scale = static_cast<float>(std::exp2(exponent));
  }
  for (size_t k = 0; k < tensor.values.size(); ++k)
    tensor.values[k] = bits(static_cast<float>(2 * static_cast<int>(k) - 127) / 128 * scale);
  return tensor;
}

#if VLR_WITH_CUDA
Status fill_synthetic_weight(const WeightSpec& spec, const Tensor& weight, CUstream_st* stream) {
  auto* to = weight.as<uint16_t>();
  for (const WeightPart& part : spec.parts) {
    int64_t row = 1;
    for (size_t axis = 1; axis < part.shape.size(); ++axis) row *= part.shape[axis];
    const SyntheticTensor t = synthetic_tensor(part.source, part.shape, weight.dtype);
    VLR_RETURN_IF_ERROR(cuda::fill_synthetic(to, part.num_rows * row,
                                             t.base + static_cast<uint64_t>(part.first_row * row),
                                             t.shift, t.table(), stream));
    to += part.num_rows * row;
  }
  return {};
}
#else
Status fill_synthetic_weight(const WeightSpec&, const Tensor&, CUstream_st*) {
  return {Code::kUnimplemented, "synthetic weights: this build has no CUDA backend"};
}
#endif

void fill_synthetic(const NamedShape& tensor, int64_t begin, std::span<uint16_t> out) {
  const SyntheticTensor t = synthetic_tensor(tensor.name, tensor.shape);
  const uint64_t base = t.base + static_cast<uint64_t>(begin);
  for (size_t i = 0; i < out.size(); ++i) out[i] = t.values[splitmix64(base + i) >> t.shift];
}

Result<ModelConfig> synthetic_config(std::string_view preset) {
  VLR_ASSIGN_OR_RETURN(Preset p, find_preset(preset));
  return std::move(p.config);
}

Result<int64_t> synthetic_shard_bytes(std::string_view preset) {
  VLR_ASSIGN_OR_RETURN(const Preset p, find_preset(preset));
  return p.max_shard_bytes;
}

}  // namespace vlr
