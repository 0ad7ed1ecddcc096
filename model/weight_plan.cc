#include "model/weight_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "model/stored_weight.h"

namespace vlr {
namespace {

constexpr std::string_view kText = "model.language_model.";
constexpr std::string_view kVisual = "model.visual.";
constexpr std::string_view kPatchEmbed = "model.visual.patch_embed.proj.weight";
constexpr std::string_view kScore =
    "score.weight";  // [1, H], of a sequence-classification checkpoint

class TensorList {
 public:
  explicit TensorList(DType dtype) : dtype_(dtype) {}

  void add(std::string name, std::vector<int64_t> shape) {
    list_.push_back({{dtype_, std::move(shape)}, std::move(name)});
  }
  /// weight [out, in] and bias [out].
  void linear(const std::string& module, int64_t out, int64_t in) {
    add(module + ".weight", {out, in});
    add(module + ".bias", {out});
  }
  void layernorm(const std::string& module, int64_t size) {
    add(module + ".weight", {size});
    add(module + ".bias", {size});
  }
  std::vector<NamedShape> take() && { return std::move(list_); }

 private:
  DType dtype_;
  std::vector<NamedShape> list_;
};

void add_merger(TensorList& list, const std::string& module, const VisionConfig& c,
                int64_t norm_size) {
  list.layernorm(module + ".norm", norm_size);
  list.linear(module + ".linear_fc1", c.merged_size(), c.merged_size());
  list.linear(module + ".linear_fc2", c.out_hidden_size, c.merged_size());
}

void add_vision(TensorList& list, const VisionConfig& c) {
  const std::string visual(kVisual);
  list.add(std::string(kPatchEmbed),
           {c.hidden_size, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size});
  list.add(visual + "patch_embed.proj.bias", {c.hidden_size});
  list.add(visual + "pos_embed.weight", {c.num_position_embeddings, c.hidden_size});
  for (int64_t n = 0; n < c.depth; ++n) {
    const std::string block = fmt::format("{}blocks.{}.", kVisual, n);
    list.layernorm(block + "norm1", c.hidden_size);
    list.layernorm(block + "norm2", c.hidden_size);
    list.linear(block + "attn.qkv", 3 * c.hidden_size, c.hidden_size);
    list.linear(block + "attn.proj", c.hidden_size, c.hidden_size);
    list.linear(block + "mlp.linear_fc1", c.intermediate_size, c.hidden_size);
    list.linear(block + "mlp.linear_fc2", c.hidden_size, c.intermediate_size);
  }
  // The final merger normalises each patch, the deepstack mergers the four patches side by side.
  add_merger(list, visual + "merger", c, c.hidden_size);
  for (size_t k = 0; k < c.deepstack_visual_indexes.size(); ++k) {
    add_merger(list, fmt::format("{}deepstack_merger_list.{}", kVisual, k), c, c.merged_size());
  }
}

void add_text(TensorList& list, const TextConfig& c) {
  const int64_t q_size = c.num_attention_heads * c.head_dim;
  const int64_t kv_size = c.num_key_value_heads * c.head_dim;
  list.add(std::string(weights::kEmbedTokens), {c.vocab_size, c.hidden_size});
  for (int64_t n = 0; n < c.num_hidden_layers; ++n) {
    const std::string layer = fmt::format("{}{}.", weights::kTextLayers, n);
    list.add(layer + "self_attn.q_proj.weight", {q_size, c.hidden_size});
    list.add(layer + "self_attn.k_proj.weight", {kv_size, c.hidden_size});
    list.add(layer + "self_attn.v_proj.weight", {kv_size, c.hidden_size});
    list.add(layer + "self_attn.o_proj.weight", {c.hidden_size, q_size});
    list.add(layer + "self_attn.q_norm.weight", {c.head_dim});
    list.add(layer + "self_attn.k_norm.weight", {c.head_dim});
    list.add(layer + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    list.add(layer + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
    list.add(layer + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
    list.add(layer + "input_layernorm.weight", {c.hidden_size});
    list.add(layer + "post_attention_layernorm.weight", {c.hidden_size});
  }
  list.add(std::string(weights::kTextNorm), {c.hidden_size});
}

bool drop_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

void drop_outer_prefixes(std::string_view& name) {
  while (drop_prefix(name, "base_model.model.") || drop_prefix(name, "model.") ||
         drop_prefix(name, "vlm.")) {
  }
}

using NameMap = std::map<std::string, std::string, std::less<>>;  // canonical -> stored

NameMap canonical_to_stored(const StoredTensors& stored, std::vector<std::string>& ambiguous) {
  NameMap map;
  for (const auto& [name, t] : stored) {
    const auto [it, is_new] = map.emplace(canonical_name(name), name);
    if (!is_new)
      ambiguous.push_back(fmt::format("{}: stored as {} and as {}", it->first, it->second, name));
  }
  return map;
}

/// The tensors without which nothing can be scored. `map` decides about the head: score.weight,
/// else lm_head, which only a configuration with tying may leave out.
std::vector<NamedShape> needed_tensors(const ModelConfig& config, const NameMap& map) {
  ModelConfig tied = config;
  tied.tie_word_embeddings = true;
  std::vector<NamedShape> needed = checkpoint_tensors(tied);
  const TextConfig& t = config.text_config;
  NamedShape head;  // g++ 12 takes a temporary here for uninitialised
  if (map.contains(kScore)) {
    head.name = kScore;
    head.shape = {1, t.hidden_size};
    needed.push_back(std::move(head));
  } else if (map.contains(weights::kLmHead) || !config.tie_word_embeddings) {
    head.name = weights::kLmHead;
    head.shape = {t.vocab_size, t.hidden_size};
    needed.push_back(std::move(head));
  }
  return needed;
}

/// The N of "<list>N.rest"; none if the name is something else.
std::optional<int64_t> index_in(std::string_view list, std::string_view name) {
  if (!drop_prefix(name, list)) return {};
  int64_t n = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), n);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return {};
  return n;
}

/// Why scores would be others if this unused tensor were used; "": it is harmless.
std::string harm_of(const ModelConfig& config, const NameMap& all, const NameMap& unused,
                    std::string_view name) {
  if (name.find("lora_") != name.npos || name.find(".modules_to_save.") != name.npos)
    return "is an adapter's, which has to be merged into the model";
  struct Layers {
    std::string list;
    int64_t count;
    std::string_view key;
  };
  std::vector<Layers> lists = {{std::string(weights::kTextLayers),
                                config.text_config.num_hidden_layers, "num_hidden_layers"}};
  if (const auto& vision = config.vision_config) {
    const std::string visual(kVisual);
    lists.push_back({visual + "blocks.", vision->depth, "depth"});
    lists.push_back({visual + "deepstack_merger_list.",
                     std::ssize(vision->deepstack_visual_indexes),
                     "the length of deepstack_visual_indexes"});
  }
  for (const auto& [list, count, key] : lists) {
    if (const auto n = index_in(list, name); n && *n >= count)
      return fmt::format("config.json has {} of them, as {}", count, key);
  }
  if (name == "score.bias" || name == "classifier.bias" || name == "lm_head.bias")
    return "a bias of the head is not read";
  // Whatever else a module has whose weight is used.
  for (size_t dot = name.rfind('.'); dot != name.npos && dot > 0; dot = name.rfind('.', dot - 1)) {
    const std::string weight = std::string(name.substr(0, dot)) + ".weight";
    if (weight != name && all.contains(weight) && !unused.contains(weight))
      return "is not read, and the weight beside it is";
  }
  return "";
}

/// What a weight that is not there looks packed as, at one of its tensors; "": not packed.
std::string packed_as(const NameMap& all, std::string_view name) {
  std::string_view module = name;
  const auto is = [&](std::string_view suffix) {
    if (!name.ends_with(suffix)) return false;
    module = name.substr(0, name.size() - suffix.size());
    return true;
  };
  const auto beside = [&](std::string_view suffix) {
    return all.contains(stored::joined(module, suffix));
  };
  const auto codes_of = [&](std::string_view whose) {
    if (beside(stored::kWeight)) return std::string();
    return fmt::format("packed codes as {} them, which vlr does not read", whose);
  };
  constexpr std::string_view kCodes = ".qweight", kPacked = ".weight_packed",
                             kGlobalScale = ".weight_global_scale";
  if (is(kCodes) || (is(".qzeros") && !beside(kCodes))) return codes_of("AWQ and GPTQ have");
  if (is(kGlobalScale) && !beside(kPacked)) return codes_of("NVFP4 has");
  if (!is(kPacked)) return "";
  return codes_of(beside(kGlobalScale) ? "NVFP4 has"
                                       : "compressed-tensors (W4A16, pack-quantized) has");
}

NameReport compare(const ModelConfig& config, const StoredTensors& stored, NameMap& map) {
  NameReport report;
  map = canonical_to_stored(stored, report.ambiguous);
  std::erase_if(map, [&](const auto& entry) { return belongs_to_quantized(stored, entry.second); });
  NameMap unused = map;
  for (const NamedShape& want : needed_tensors(config, map)) {
    unused.erase(want.name);
    const auto it = map.find(want.name);
    if (it == map.end()) {
      report.missing.push_back(want.name + " " + describe_shape(want.shape));
      continue;
    }
    const StoredTensor& got = stored.find(it->second)->second;
    const auto weight = stored_weight(stored, it->second);
    if (!weight) {
      report.wrong_shape.push_back(weight.error().message());
      continue;
    }
    const bool number =
        got.dtype == DType::kBF16 || got.dtype == DType::kF16 || got.dtype == DType::kF32;
    if (weight->shape == want.shape && weight->format == WeightFormat::kDense && !number) {
      report.wrong_shape.push_back(
          fmt::format("{} must be bf16, f16 or f32, got {}", it->second, dtype_name(got.dtype)));
      continue;
    }
    if (weight->shape == want.shape) continue;
    std::string line = fmt::format("{}: expected {}, got {}", it->second,
                                   describe_shape(want.shape), describe(got));
    if (want.name == kPatchEmbed && got.shape.size() == 5 && got.shape.back() == want.shape[1]) {
      line += " (channels last, an MLX conversion, which vlr does not read)";
    }
    if (got.dtype == DType::kU32)
      line += " (packed codes, as in an MLX conversion, which vlr does not read)";
    if (want.name == kScore) line += " (only one label, yes against no, is supported)";
    report.wrong_shape.push_back(std::move(line));
  }
  for (const auto& [name, stored_name] : unused) {
    std::string why = packed_as(map, name);
    if (!why.empty()) {
      report.packed.push_back(fmt::format("{}: {}", stored_name, why));
      continue;
    }
    why = harm_of(config, map, unused, name);
    if (why.empty()) {
      report.unexpected.push_back(stored_name);
    } else {
      report.harmful.push_back(fmt::format("{}: {}", stored_name, std::move(why)));
    }
  }
  return report;
}

/// The first few of `lines`, joined.
std::string excerpt(const std::vector<std::string>& lines) {
  constexpr size_t kMaxLines = 3;
  const size_t shown = std::min(lines.size(), kMaxLines);
  std::string text = fmt::format(
      "{}", fmt::join(lines.begin(), lines.begin() + static_cast<std::ptrdiff_t>(shown), "; "));
  if (lines.size() > shown) text += fmt::format("; and {} more", lines.size() - shown);
  return text;
}

}  // namespace

std::vector<NamedShape> checkpoint_tensors(const ModelConfig& config, DType dtype) {
  TensorList list(dtype);
  if (config.vision_config) add_vision(list, *config.vision_config);
  add_text(list, config.text_config);
  if (!config.tie_word_embeddings) {
    list.add(std::string(weights::kLmHead),
             {config.text_config.vocab_size, config.text_config.hidden_size});
  }
  return std::move(list).take();
}

StoredTensors checkpoint_without_data(const ModelConfig& config, DType dtype) {
  StoredTensors stored;
  for (const NamedShape& t : checkpoint_tensors(config, dtype)) {
    StoredTensor& s = stored[t.name];
    s.dtype = t.dtype;
    s.shape = t.shape;
  }
  return stored;
}

std::string canonical_name(std::string_view stored) {
  std::string_view rest = stored;
  drop_outer_prefixes(rest);
  const bool is_text = drop_prefix(rest, "language_model.");
  if (is_text) drop_outer_prefixes(rest);
  if (rest == weights::kLmHead) return std::string(rest);
  if (rest == kScore || rest == "classifier.weight") return std::string(kScore);
  if (drop_prefix(rest, "visual.") || drop_prefix(rest, "vision_tower.")) {
    return std::string(kVisual) + std::string(rest);
  }
  if (is_text || rest.starts_with("layers.") || rest.starts_with("embed_tokens.") ||
      rest.starts_with("norm.")) {
    return std::string(kText) + std::string(rest);
  }
  return std::string(rest);
}

Status NameReport::status() const {
  if (!ambiguous.empty()) {
    return {Code::kInvalidArgument, "the checkpoint has tensors twice: " + excerpt(ambiguous)};
  }
  if (!packed.empty()) return {Code::kUnimplemented, "the checkpoint has " + excerpt(packed)};
  if (!missing.empty()) {
    return {Code::kNotFound, fmt::format("the checkpoint lacks {} tensors of its configuration: {}",
                                         missing.size(), excerpt(missing))};
  }
  if (!wrong_shape.empty()) {
    return {Code::kInvalidArgument, fmt::format("{} tensors are not as the model needs them: {}",
                                                wrong_shape.size(), excerpt(wrong_shape))};
  }
  if (!harmful.empty()) {
    return {Code::kUnimplemented,
            fmt::format("{} tensors that would change scores are not used: {}", harmful.size(),
                        excerpt(harmful))};
  }
  return {};
}

NameReport compare_names(const ModelConfig& config, const StoredTensors& stored) {
  NameMap map;
  return compare(config, stored, map);
}

Result<WeightPlan> make_weight_plan(const ModelConfig& config, const StoredTensors& stored,
                                    HeadTokens tokens) {
  NameMap map;
  VLR_RETURN_IF_ERROR(compare(config, stored, map).status());

  const auto part = [&](std::string_view canonical, int64_t first_row, int64_t num_rows) {
    const std::string& source = map.find(canonical)->second;
    const auto weight = stored_weight(stored, source);  // compare() has seen that it is one
    return WeightPart{source,
                      weight->shape,
                      first_row,
                      num_rows,
                      weight->format,
                      stored.find(source)->second.aligned(),
                      weight->nested_scales};
  };
  const auto whole = [&](std::string_view canonical) {
    return part(canonical, 0, stored_weight(stored, map.find(canonical)->second)->shape[0]);
  };

  ModelConfig without_head = config;
  without_head.tie_word_embeddings = true;
  WeightPlan plan;
  for (NamedShape& t : checkpoint_tensors(without_head)) {
    const std::string_view name = t.name;
    const auto module = [&](std::string_view suffix) {
      return t.name.substr(0, name.size() - suffix.size());
    };
    if (constexpr std::string_view kQ = "self_attn.q_proj.weight"; name.ends_with(kQ)) {
      const std::string layer = module(kQ);
      WeightSpec qkv{layer + std::string(weights::kQkvProj),
                     {0, config.text_config.hidden_size},
                     {whole(name), whole(layer + "self_attn.k_proj.weight"),
                      whole(layer + "self_attn.v_proj.weight")}};
      for (const WeightPart& p : qkv.parts) qkv.shape[0] += p.num_rows;
      plan.push_back(std::move(qkv));
    } else if (constexpr std::string_view kGate = "mlp.gate_proj.weight"; name.ends_with(kGate)) {
      const std::string layer = module(kGate);
      plan.push_back({layer + std::string(weights::kGateUpProj),
                      {2 * config.text_config.intermediate_size, config.text_config.hidden_size},
                      {whole(name), whole(layer + "mlp.up_proj.weight")}});
    } else if (name == kPatchEmbed) {
      plan.push_back({t.name, {t.shape[0], config.vision_config->patch_dim()}, {whole(name)}});
    } else if (!name.ends_with(".k_proj.weight") && !name.ends_with(".v_proj.weight") &&
               !name.ends_with(".up_proj.weight")) {
      plan.push_back({t.name, std::move(t.shape), {whole(name)}});
    }
  }

  const TextConfig& text = config.text_config;
  if (map.contains(kScore)) {
    plan.push_back({std::string(weights::kScoreHead), {1, text.hidden_size}, {whole(kScore)}});
    return plan;
  }
  for (const int32_t id : {tokens.yes, tokens.no}) {
    if (id < 0 || id >= text.vocab_size) {
      return {Code::kInvalidArgument,
              fmt::format("token id {} of the score head is outside the vocabulary of {}", id,
                          text.vocab_size)};
    }
  }
  const std::string_view head =
      map.contains(weights::kLmHead) ? weights::kLmHead : weights::kEmbedTokens;
  plan.push_back({std::string(weights::kScoreHead),
                  {2, text.hidden_size},
                  {part(head, tokens.yes, 1), part(head, tokens.no, 1)}});
  return plan;
}

std::vector<FormatPart> format_parts(const WeightSpec& spec) {
  std::vector<FormatPart> out;
  for (const WeightPart& part : spec.parts)
    out.push_back({.values = part.num_rows * spec.shape[1],
                   .source = part.source,
                   .nested_scales = part.nested_scales});
  return out;
}

std::vector<WeightTensor> tensors_of(const WeightSpec& spec, DType dtype, Device device) {
  std::vector<WeightTensor> out;
  const auto add = [&](std::string_view suffix, DType type, const std::vector<int64_t>& shape) {
    ConstTensor t = contiguous_view(nullptr, type, shape);
    t.device = device;
    out.push_back({spec.name + std::string(suffix), t});
  };
  if (spec.format == WeightFormat::kDense) {
    add("", dtype, spec.shape);
    return out;
  }
  const FormatInfo& format = format_info(spec.format);
  const int64_t n = spec.shape[0], k = spec.shape[1];
  add("", format.code_dtype, {n, k / format.values_per_code});
  for (const Sidecar& s : format.sidecars(n, k, format_parts(spec)))
    add(s.suffix, s.dtype, s.shape);
  return out;
}

}  // namespace vlr
