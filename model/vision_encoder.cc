#include "model/vision_encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/graph_builder.h"

namespace vlr {
namespace {

constexpr float kLayerNormEps = 1e-6f;

/// Qwen3VLVisionBlock: pre-norm attention within a frame, pre-norm MLP. x [P, h]. What comes before
/// attention is one region of rows, what comes after it the other.
Value vision_block(GraphBuilder& g, const VisionConfig& c, int64_t index, Value x,
                   Value rope_table) {
  g.scope = fmt::format("blocks.{}.", index);
  g.weight_scope = "model.visual." + g.scope;
  const int64_t width = c.hidden_size, head_dim = c.head_dim();
  g.graph.begin_rows(Sym::kPatches);
  Value h =
      g.layernorm("norm1", x, g.weight("norm1.weight"), g.weight("norm1.bias"), kLayerNormEps);
  const Value qkv = g.linear("attn.qkv", h, g.linear_weight("attn.qkv.weight"),
                             g.weight("attn.qkv.bias"), 3 * width);
  // Queries and keys stand side by side and turn alike.
  const Value qk = g.rope_in_place(
      "attn.qk_rope", g.graph.heads(g.graph.columns(qkv, 0, 2 * width), head_dim), rope_table);
  const Value q = g.graph.head_range(qk, 0, c.num_heads);
  const Value k = g.graph.head_range(qk, c.num_heads, c.num_heads);
  const Value v = g.graph.heads(g.graph.columns(qkv, 2 * width, width), head_dim);
  g.graph.end_rows();
  const Value a = g.attention("attn.attention", q, k, v,
                              {.prefix_k = {},
                               .prefix_v = {},
                               .segments = 0,
                               .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
                               .causal = false});
  g.graph.begin_rows(Sym::kPatches);
  x = g.linear_add_in_place("attn.proj", "attn.residual", g.graph.flat(a),
                            g.linear_weight("attn.proj.weight"), g.weight("attn.proj.bias"), x);
  h = g.layernorm("norm2", x, g.weight("norm2.weight"), g.weight("norm2.bias"), kLayerNormEps);
  const LinearWeight w1 = g.linear_weight("mlp.linear_fc1.weight");
  const Value b1 = g.weight("mlp.linear_fc1.bias");
  if (g.options.fuse_gelu) {
    h = g.linear_gelu("mlp.linear_fc1", h, w1, b1, c.intermediate_size);
  } else {
    h = g.linear("mlp.linear_fc1", h, w1, b1, c.intermediate_size);
    h = g.gelu_in_place("mlp.act", h, ops::GeluKind::kTanh);
  }
  x = g.linear_add_in_place("mlp.linear_fc2", "mlp.residual", h,
                            g.linear_weight("mlp.linear_fc2.weight"),
                            g.weight("mlp.linear_fc2.bias"), x);
  g.graph.end_rows();
  return x;
}

/// Qwen3VLVisionPatchMerger: four patches side by side become one token. The DeepStack mergers
/// normalise the merged row, the final one each patch.
void merger(GraphBuilder& g, const VisionConfig& c, std::string_view name, Value x,
            bool norm_after_merge, Value to) {
  g.scope = std::string(name) + ".";
  g.weight_scope = "model.visual." + g.scope;
  const int64_t factor = c.patches_per_token();
  g.graph.begin_rows(Sym::kPatches);
  const auto norm = [&](Value v) {
    return g.layernorm("norm", v, g.weight("norm.weight"), g.weight("norm.bias"), kLayerNormEps);
  };
  Value h =
      norm_after_merge ? norm(g.graph.merge_rows(x, factor)) : g.graph.merge_rows(norm(x), factor);
  h = g.linear("linear_fc1", h, g.linear_weight("linear_fc1.weight"), g.weight("linear_fc1.bias"),
               c.merged_size());
  h = g.gelu_in_place("act", h, ops::GeluKind::kErf);
  g.linear("linear_fc2", h, g.linear_weight("linear_fc2.weight"), g.weight("linear_fc2.bias"),
           c.out_hidden_size, to);
  g.graph.end_rows();
}

}  // namespace

std::string feature_name(size_t level) {
  return level == 0 ? "visual" : fmt::format("deepstack.{}", level - 1);
}

Graph build_vision_graph(const VisionConfig& c, const GraphOptions& options) {
  const int64_t pairs = c.head_dim() / 2, factor = c.patches_per_token();
  GraphBuilder g(options);
  Graph& graph = g.graph;
  const Value patches =
      graph.bound(std::string(vision_values::kPatches), DType::kU8, {Sym::kPatches, c.patch_dim()});
  const Value pos_indices =
      graph.bound(std::string(vision_values::kPosIndices), DType::kI32, {Sym::kPatches, 4});
  const Value pos_weights =
      graph.bound(std::string(vision_values::kPosWeights), DType::kF32, {Sym::kPatches, 4});
  const Value positions =
      graph.bound(std::string(vision_values::kPositions), DType::kI32, {2, Sym::kPatches});
  const Value axis = graph.bound(std::string(vision_values::kRopeAxis), DType::kI32, {pairs});
  const Value inv_freq =
      graph.bound(std::string(vision_values::kRopeInvFreq), DType::kF32, {pairs});
  const Dim tokens(Sym::kPatches, 1, factor);
  const Value visual = graph.bound(feature_name(0), options.dtype, {tokens, c.out_hidden_size});

  g.weight_scope = "model.visual.";
  const Value rope_table = g.rope_table("rope_table", positions, axis, inv_freq, pairs);
  graph.begin_rows(Sym::kPatches);
  Value x = g.patch_embed("patch_embed", patches, g.weight("patch_embed.proj.weight"),
                          g.weight("patch_embed.proj.bias"), c.hidden_size);
  x = g.vision_pos_embed_in_place("pos_embed", x, g.weight("pos_embed.weight"), pos_indices,
                                  pos_weights);
  graph.end_rows();
  size_t level = 0;
  for (int64_t i = 0; i < c.depth; ++i) {
    x = vision_block(g, c, i, x, rope_table);
    if (level < c.deepstack_visual_indexes.size() && c.deepstack_visual_indexes[level] == i) {
      const Value to =
          graph.bound(feature_name(level + 1), options.dtype, {tokens, c.out_hidden_size});
      merger(g, c, fmt::format("deepstack_merger_list.{}", level), x, true, to);
      ++level;
    }
  }
  merger(g, c, "merger", x, false, visual);
  return std::move(g.graph);
}

namespace {

/// torch.linspace(0, last, count)[i] in f32: counted from both ends.
float linspace(float last, int64_t count, int64_t i) {
  const float step = last / static_cast<float>(count - 1);
  return i < count / 2 ? step * static_cast<float>(i)
                       : last - step * static_cast<float>(count - 1 - i);
}

}  // namespace

void VisionPositions::append(const VisionConfig& config, int64_t grid_t, int64_t grid_h,
                             int64_t grid_w) {
  const auto side = static_cast<int64_t>(
      std::llround(std::sqrt(static_cast<double>(config.num_position_embeddings))));
  const int64_t merge = config.spatial_merge_size;
  struct Coordinate {
    int32_t low, high;
    float fraction;
  };
  const auto coordinates = [&](int64_t count) {
    std::vector<Coordinate> out;
    for (int64_t i = 0; i < count; ++i) {
      const float f = linspace(static_cast<float>(side - 1), count, i);
      const auto low = static_cast<int32_t>(f);
      out.push_back(
          {low, std::min(low + 1, static_cast<int32_t>(side - 1)), f - static_cast<float>(low)});
    }
    return out;
  };
  const std::vector<Coordinate> ys = coordinates(grid_h), xs = coordinates(grid_w);
  for (int64_t t = 0; t < grid_t; ++t) {
    const auto begin = static_cast<int32_t>(rows.size());
    const auto patches = static_cast<int32_t>(grid_h * grid_w);
    segments.push_back({.q_begin = begin,
                        .q_len = patches,
                        .k_begin = begin,
                        .k_len = patches,
                        .prefix_begin = 0,
                        .prefix_len = 0});
    for (int64_t block_row = 0; block_row < grid_h; block_row += merge) {
      for (int64_t block_column = 0; block_column < grid_w; block_column += merge) {
        for (int64_t i = 0; i < merge * merge; ++i) {
          const int64_t row = block_row + i / merge, column = block_column + i % merge;
          const Coordinate& y = ys[static_cast<size_t>(row)];
          const Coordinate& x = xs[static_cast<size_t>(column)];
          const auto table_width = static_cast<int32_t>(side);
          for (const int32_t corner :
               {y.low * table_width + x.low, y.low * table_width + x.high,
                y.high * table_width + x.low, y.high * table_width + x.high}) {
            pos_indices.push_back(corner);
          }
          for (const float weight :
               {(1 - y.fraction) * (1 - x.fraction), (1 - y.fraction) * x.fraction,
                y.fraction * (1 - x.fraction), y.fraction * x.fraction}) {
            pos_weights.push_back(weight);
          }
          rows.push_back(static_cast<int32_t>(row));
          columns.push_back(static_cast<int32_t>(column));
        }
      }
    }
  }
}

}  // namespace vlr
