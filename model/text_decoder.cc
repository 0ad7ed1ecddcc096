#include "model/text_decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "model/graph_builder.h"
#include "model/vision_encoder.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

/// What every layer reads beside its weights.
struct Inputs {
  Value rope_table;       // [T, 2, D/2]
  Value last_rope_table;  // [B, 2, D/2]
  Value last_rows;        // [B]
};

/// One decoder layer (Qwen3VLTextDecoderLayer). Keys are rotated where they stand, in the product's
/// columns; a prefix pass keeps them and the values beside them, a score pass reads them as the
/// first key segment.
///
/// Three regions of rows around attention: norm and QKV product, output product, MLP.
class Layer {
 public:
  Layer(GraphBuilder& g, const TextConfig& c, TextGraph which, int64_t index)
      : g_(g),
        c_(c),
        which_(which),
        q_width_(c.num_attention_heads * c.head_dim),
        kv_width_(c.num_key_value_heads * c.head_dim),
        eps_(static_cast<float>(c.rms_norm_eps)) {
    g_.scope = fmt::format("layers.{}.", index);
    g_.weight_scope = std::string(weights::kTextLayers) + fmt::format("{}.", index);
    prefix_ = g_.graph.bound(
        text_values::prefix_kv(index), g.options.dtype,
        {which == TextGraph::kPrefix ? Sym::kTokens : Sym::kPrefixTokens, 2 * kv_width_});
  }

  Value run(Value x, const Inputs& in) {
    g_.graph.begin_rows(Sym::kTokens);
    const LinearWeight qkv_proj = g_.linear_weight(weights::kQkvProj);
    const LinearInput h =
        g_.rmsnorm_for(qkv_proj, "input_layernorm", x, g_.weight("input_layernorm.weight"), eps_);
    const Value qkv = g_.linear("self_attn.qkv_proj", h, qkv_proj, {}, q_width_ + 2 * kv_width_);
    const auto [q, k] = rotate(g_.graph.columns(qkv, 0, q_width_ + kv_width_), in.rope_table);
    const Value v =
        g_.graph.heads(g_.graph.columns(qkv, q_width_ + kv_width_, kv_width_), c_.head_dim);
    if (which_ == TextGraph::kPrefix)
      g_.convert("store_prefix", g_.graph.columns(qkv, q_width_, 2 * kv_width_), prefix_);
    g_.graph.end_rows();
    return mlp(attend(x, q, k, v, TextSegments::kAll, Sym::kTokens), Sym::kTokens);
  }

  /// kPrefix, last layer: keys and values are all that is needed.
  void run_last_prefix(Value x, const Inputs& in) {
    g_.convert("store_prefix", keys_and_values(x, in).kv, prefix_);
  }

  /// kScore, last layer: keys and values of all tokens, the rest for final tokens only. -> [B, C],
  /// in `to` if there is one
  Value run_last(Value x, const Inputs& in, Value to) {
    const KeysValues kv = keys_and_values(x, in);
    const Value last = g_.gather_rows("last", x, in.last_rows, to);
    g_.graph.begin_rows(Sym::kSequences);
    const LinearWeight q_proj = g_.rows(g_.linear_weight(weights::kQkvProj), 0, q_width_);
    const Value hq = g_.rmsnorm("last_layernorm", last, g_.weight("input_layernorm.weight"), eps_);
    const Value q = rotate_one("q", g_.linear("self_attn.q_proj", hq, q_proj, {}, q_width_),
                               in.last_rope_table);
    g_.graph.end_rows();
    return mlp(attend(last, q, kv.k, kv.v, TextSegments::kFinal, Sym::kSequences), Sym::kSequences);
  }

 private:
  struct KeysValues {
    Value kv;    // [T, 2 * Hkv * D], rotated keys and values side by side
    Value k, v;  // its parts, [T, Hkv, D]
  };

  KeysValues keys_and_values(Value x, const Inputs& in) {
    g_.graph.begin_rows(Sym::kTokens);
    const Value h = g_.rmsnorm("input_layernorm", x, g_.weight("input_layernorm.weight"), eps_);
    const LinearWeight kv_proj =
        g_.rows(g_.linear_weight(weights::kQkvProj), q_width_, 2 * kv_width_);
    const Value kv = g_.linear("self_attn.kv_proj", h, kv_proj, {}, 2 * kv_width_);
    const Value k = rotate_one("k", g_.graph.columns(kv, 0, kv_width_), in.rope_table);
    const Value v = g_.graph.heads(g_.graph.columns(kv, kv_width_, kv_width_), c_.head_dim);
    g_.graph.end_rows();
    return {.kv = kv, .k = k, .v = v};
  }

  struct QueriesKeys {
    Value q, k;  // [T, H, D], [T, Hkv, D]
  };

  /// QK-norm and rotation of every head of queries and keys side by side, in place.
  QueriesKeys rotate(Value qk, Value table) {
    if (!g_.options.fuse_qk) {
      return {.q = rotate_one("q", g_.graph.columns(qk, 0, q_width_), table),
              .k = rotate_one("k", g_.graph.columns(qk, q_width_, kv_width_), table)};
    }
    const Value rotated = g_.qk_norm_rope_in_place(
        "self_attn.qk_norm_rope", g_.graph.heads(qk, c_.head_dim), norm_weight("q"),
        norm_weight("k"), c_.num_attention_heads, table, eps_);
    return {.q = g_.graph.head_range(rotated, 0, c_.num_attention_heads),
            .k = g_.graph.head_range(rotated, c_.num_attention_heads, c_.num_key_value_heads)};
  }

  /// The same for queries or for keys alone.
  Value rotate_one(std::string_view which, Value x, Value table) {
    const Value heads = g_.graph.heads(x, c_.head_dim);
    if (g_.options.fuse_qk) {
      const bool queries = which == "q";
      return g_.qk_norm_rope_in_place(
          fmt::format("self_attn.{}_norm_rope", which), heads, queries ? norm_weight("q") : Value{},
          queries ? Value{} : norm_weight("k"), queries ? c_.num_attention_heads : 0, table, eps_);
    }
    const Value normed = g_.rmsnorm_in_place(fmt::format("self_attn.{}_norm", which), heads,
                                             norm_weight(which), eps_);
    return g_.rope_in_place(fmt::format("self_attn.{}_rope", which), normed, table);
  }

  Value norm_weight(std::string_view which) {
    return g_.weight(fmt::format("self_attn.{}_norm.weight", which));
  }

  /// residual + o_proj(attention), in the residual's storage.
  Value attend(Value residual, Value q, Value k, Value v, int segments, Sym rows) {
    AttentionOptions options{.prefix_k = {},
                             .prefix_v = {},
                             .segments = segments,
                             .scale = 1 / std::sqrt(static_cast<float>(c_.head_dim)),
                             .causal = true};
    if (which_ == TextGraph::kScore) {
      options.prefix_k = g_.graph.heads(g_.graph.columns(prefix_, 0, kv_width_), c_.head_dim);
      options.prefix_v =
          g_.graph.heads(g_.graph.columns(prefix_, kv_width_, kv_width_), c_.head_dim);
    }
    const Value a = g_.graph.flat(g_.attention("self_attn.attention", q, k, v, options));
    g_.graph.begin_rows(rows);
    const Value x =
        g_.linear_add_in_place("self_attn.o_proj", "self_attn.residual", a,
                               g_.linear_weight("self_attn.o_proj.weight"), {}, residual);
    g_.graph.end_rows();
    return x;
  }

  Value mlp(Value x, Sym rows) {
    const int64_t width = c_.intermediate_size;
    g_.graph.begin_rows(rows);
    const LinearWeight gate_up_proj = g_.linear_weight(weights::kGateUpProj),
                       down_proj = g_.linear_weight("mlp.down_proj.weight");
    const LinearInput h = g_.rmsnorm_for(gate_up_proj, "post_attention_layernorm", x,
                                         g_.weight("post_attention_layernorm.weight"), eps_);
    const Value gate_up = g_.linear("mlp.gate_up_proj", h, gate_up_proj, {}, 2 * width);
    const LinearInput s =
        g_.swiglu_for(down_proj, "mlp.swiglu", g_.graph.columns(gate_up, 0, width),
                      g_.graph.columns(gate_up, width, width));
    x = g_.linear_add_in_place("mlp.down_proj", "mlp.residual", s, down_proj, {}, x);
    g_.graph.end_rows();
    return x;
  }

  GraphBuilder& g_;
  const TextConfig& c_;
  TextGraph which_;
  int64_t q_width_, kv_width_;
  float eps_;
  Value prefix_;
};

}  // namespace

std::string text_values::prefix_kv(int64_t layer) { return fmt::format("prefix_kv.{}", layer); }

Graph build_text_graph(const ModelConfig& config, TextGraph which, const GraphOptions& options) {
  return build_text_graph(config, which, {.end = config.text_config.num_hidden_layers}, options);
}

Graph build_text_graph(const ModelConfig& config, TextGraph which, const TextSection& section,
                       const GraphOptions& options) {
  const TextConfig& c = config.text_config;
  const int64_t pairs = c.head_dim / 2, last_layer = c.num_hidden_layers - 1;
  const bool has_layers = section.begin < section.end,
             has_last = has_layers && section.end > last_layer,
             final_rows = which == TextGraph::kScore && has_last;
  GraphBuilder g(options);
  Graph& graph = g.graph;
  const int64_t levels =
      config.vision_config ? std::ssize(config.vision_config->deepstack_visual_indexes) : 0;
  Value ids, visual_row, positions, axis, inv_freq, visual;
  if (section.embedding)
    ids = graph.bound(std::string(text_values::kIds), DType::kI32, {Sym::kTokens});
  if (section.embedding || section.begin < std::min(section.end, levels))
    visual_row = graph.bound(std::string(text_values::kVisualRow), DType::kI32, {Sym::kTokens});
  if (has_layers) {
    positions = graph.bound(std::string(text_values::kPositions), DType::kI32, {3, Sym::kTokens});
    axis = graph.bound(std::string(text_values::kRopeAxis), DType::kI32, {pairs});
    inv_freq = graph.bound(std::string(text_values::kRopeInvFreq), DType::kF32, {pairs});
  }
  if (section.embedding && config.vision_config)
    visual = graph.bound(feature_name(0), options.dtype, {Sym::kVisualTokens, c.hidden_size});
  std::map<int64_t, Value> deepstack;  // by layer
  for (int64_t k = section.begin; k < std::min(section.end, levels); ++k) {
    deepstack[k] = graph.bound(feature_name(static_cast<size_t>(k) + 1), options.dtype,
                               {Sym::kVisualTokens, c.hidden_size});
  }
  // What comes from or goes to other sections.
  Value x, x_final;
  if (!section.embedding ? has_layers : !has_last)
    x = graph.bound(std::string(text_values::kX), options.dtype, {Sym::kTokens, c.hidden_size});
  if (which == TextGraph::kScore && section.head != has_last)
    x_final = graph.bound(std::string(text_values::kXFinal), options.dtype,
                          {Sym::kSequences, c.hidden_size});

  Inputs in;
  if (has_layers) in.rope_table = g.rope_table("rope_table", positions, axis, inv_freq, pairs);
  if (final_rows) {
    in.last_rows = graph.bound(std::string(text_values::kLastRows), DType::kI32, {Sym::kSequences});
    const Value last_positions =
        graph.bound(std::string(text_values::kLastPositions), DType::kI32, {3, Sym::kSequences});
    in.last_rope_table = g.rope_table("last_rope_table", last_positions, axis, inv_freq, pairs);
  }
  if (section.embedding) {
    x = g.embedding("embed_tokens", ids, visual_row,
                    graph.weight(std::string(weights::kEmbedTokens)), visual, c.hidden_size, x);
  }
  for (int64_t i = section.begin; i < std::min(section.end, last_layer); ++i) {
    x = Layer(g, c, which, i).run(x, in);
    if (const auto features = deepstack.find(i); features != deepstack.end())
      x = g.deepstack_add_in_place("deepstack_add", x, visual_row, features->second);
  }
  if (has_last) {
    Layer last(g, c, which, last_layer);
    if (which == TextGraph::kPrefix) {
      last.run_last_prefix(x, in);
    } else {
      // A final token is never a picture: no DeepStack here.
      x_final = last.run_last(x, in, x_final);
    }
  }
  if (which == TextGraph::kPrefix || !section.head) return std::move(g.graph);
  g.scope.clear();
  const Value log_odds =
      graph.bound(std::string(text_values::kLogOdds), DType::kF32, {Sym::kSequences});
  g.score_head("score_head", x_final, graph.weight(std::string(weights::kTextNorm)),
               graph.weight(std::string(weights::kScoreHead)), static_cast<float>(c.rms_norm_eps),
               log_odds);
  return std::move(g.graph);
}

}  // namespace vlr
