#include "model/quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

// What rounding explains. Activations in 16 bits: 2^-9 an operation, some 12 operations a layer, which
// add up as a random walk: 0.02 over 36 layers, and several times that is allowed. A token's int8
// codes are 0.009 off in each product, which is 0.085 over 36 layers; e4m3 is 0.026, which is 0.2.
// Log-odds of weights that are not the model's are 1 or more away.
constexpr double kOf16Bits = 0.15, kOfInt8 = 0.3, kOfE4m3 = 0.6;

constexpr ModeInfo kModes[] = {
    {QuantMode::kNone, "none", WeightFormat::kDense, Computes::kDense, true, kOf16Bits},
    {QuantMode::kNf4, "nf4", WeightFormat::kNf4, Computes::kWeightOnly, true, kOf16Bits},
    {QuantMode::kFp4, "fp4", WeightFormat::kFp4, Computes::kWeightOnly, true, kOf16Bits},
    {QuantMode::kInt8, "int8", WeightFormat::kInt8, Computes::kW8A8, false, kOfInt8},
    {QuantMode::kInt8Weight, "int8-weight", WeightFormat::kInt8, Computes::kWeightOnly, false,
     kOf16Bits},
    {QuantMode::kLlmInt8, "llm-int8", WeightFormat::kInt8, Computes::kW8A8Apart, true, kOfInt8},
    {QuantMode::kLlmInt8Batch, "llm-int8-batch", WeightFormat::kInt8, Computes::kW8A8Apart, false,
     kOfInt8},
    {QuantMode::kFp8, "fp8", WeightFormat::kFp8, Computes::kW8A8, true, kOfE4m3},
    {QuantMode::kFp8Weight, "fp8-weight", WeightFormat::kFp8, Computes::kWeightOnly, false,
     kOf16Bits},
    {QuantMode::kMxfp4, "mxfp4", WeightFormat::kMxfp4, Computes::kWeightOnly, true, kOf16Bits},
};

constexpr int64_t kConfigBytes = int64_t{4} << 20;
constexpr std::string_view kVisual = "model.visual.";

bool matches(std::string_view pattern, std::string_view canonical) {
  if (pattern == "text") return canonical.starts_with(weights::kTextLayers);
  if (pattern == "vision") return canonical.starts_with(kVisual);
  return canonical.find(pattern) != canonical.npos;
}

/// The text at a key; "" if it is none.
std::string text_of(const nlohmann::json& object, std::string_view key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

/// What bitsandbytes' own configuration says: all linear layers, but for the modules to skip.
std::vector<QuantRule> bitsandbytes_rules(const nlohmann::json& q) {
  const auto flag = [&](std::string_view key) {
    return q.contains(key) && q[key].is_boolean() && q[key].get<bool>();
  };
  std::vector<QuantRule> rules;
  if (!flag("load_in_4bit") && !flag("load_in_8bit")) return rules;
  // What transformers takes where a file does not say is fp4.
  const bool nf4 = text_of(q, "bnb_4bit_quant_type") == "nf4";
  const QuantMode mode = !flag("load_in_4bit") ? QuantMode::kLlmInt8
                         : nf4                 ? QuantMode::kNf4
                                               : QuantMode::kFp4;
  rules = {{"text", mode}, {"vision", mode}};
  const auto skip = q.find("llm_int8_skip_modules");
  if (skip == q.end() || !skip->is_array()) return rules;
  for (const nlohmann::json& module : *skip) {
    const std::string name = module.is_string() ? module.get<std::string>() : "";
    if (name.empty()) continue;
    const bool tower = name == "visual" || name.ends_with(".visual");
    rules.push_back({tower ? "vision" : name, QuantMode::kNone});
  }
  return rules;
}

Status not_read(std::string_view what) {
  return {
      Code::kUnimplemented,
      fmt::format("{} is not read; vlr reads dense weights, bitsandbytes' nf4, fp4 and "
                  "int8, compressed-tensors' and fp8's 8 bits with a scale a row or one of all, "
                  "and what `vlr quantize` writes",
                  what)};
}

/// Whether something is said there.
const nlohmann::json* object_at(const nlohmann::json& object, std::string_view key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? &*it : nullptr;
}

/// All linear layers in a mode, but for modules that are named, exactly or by a regular expression,
/// of which only those that name the tower are understood: files say what is dense, too.
std::vector<QuantRule> rules_but_for(QuantMode mode, const nlohmann::json& q,
                                     std::string_view ignored) {
  std::vector<QuantRule> rules = {{"text", mode}, {"vision", mode}};
  const auto list = q.find(ignored);
  if (list == q.end() || !list->is_array()) return rules;
  for (const nlohmann::json& module : *list) {
    const std::string name = module.is_string() ? module.get<std::string>() : "";
    const bool expression = name.starts_with("re:");
    if (name.find("visual") != name.npos && (expression || name.ends_with("visual")))
      rules.push_back({"vision", QuantMode::kNone});
    else if (!expression && !name.empty())
      rules.push_back({name, QuantMode::kNone});
  }
  return rules;
}

/// A scheme of compressed-tensors: of weights, and of activations, null if they are not quantised.
Result<QuantMode> mode_of_scheme(const nlohmann::json& scheme, std::string_view form) {
  const auto refused = [&](std::string_view why) {
    return not_read(fmt::format("compressed-tensors {} ({})", in_quotes(form), why));
  };
  const nlohmann::json* const weights = object_at(scheme, "weights");
  if (!weights) return refused("a group without quantised weights");
  const std::string type = text_of(*weights, "type"), strategy = text_of(*weights, "strategy");
  const auto bits = weights->find("num_bits");
  if (bits == weights->end() || *bits != 8) {
    return refused("weights of " + (bits == weights->end() ? "unknown" : shown(*bits)) + " bits");
  }
  if (strategy != "channel" && strategy != "tensor" && !strategy.empty())
    return refused("scales by " + in_quotes(strategy));
  const auto symmetric = weights->find("symmetric");
  if (type == "int" && symmetric != weights->end() && *symmetric == false)
    return refused("codes with a zero point");
  const nlohmann::json* const activations = object_at(scheme, "input_activations");
  if (activations && activations->contains("num_bits") && (*activations)["num_bits"] != 8)
    return refused("activations of " + shown((*activations)["num_bits"]) + " bits");
  if (type == "float") return activations ? QuantMode::kFp8 : QuantMode::kFp8Weight;
  if (type == "int") return activations ? QuantMode::kInt8 : QuantMode::kInt8Weight;
  return refused("weights of type " + in_quotes(type));
}

Result<std::vector<QuantRule>> compressed_tensors_rules(const nlohmann::json& q) {
  const std::string form = text_of(q, "format");
  if (form != "float-quantized" && form != "int-quantized" && form != "naive-quantized")
    return not_read("compressed-tensors " + in_quotes(form));
  if (const auto* sparsity = object_at(q, "sparsity_config");
      sparsity && text_of(*sparsity, "format") != "dense" && sparsity->contains("format"))
    return not_read("compressed-tensors with sparse weights");
  if (const auto* transform = object_at(q, "transform_config");
      transform && object_at(*transform, "config_groups") &&
      !object_at(*transform, "config_groups")->empty())
    return not_read("compressed-tensors with transforms of activations");
  std::optional<QuantMode> mode;
  if (const auto* groups = object_at(q, "config_groups")) {
    for (const auto& [name, scheme] : groups->items()) {
      if (!scheme.is_object())
        return not_read("compressed-tensors' config_groups " + in_quotes(name));
      VLR_ASSIGN_OR_RETURN(const QuantMode own, mode_of_scheme(scheme, form));
      if (mode.value_or(own) != own)
        return not_read("compressed-tensors with groups that compute in different ways");
      mode = own;
    }
  }
  const QuantMode usual = form == "int-quantized" ? QuantMode::kInt8 : QuantMode::kFp8;
  return rules_but_for(mode.value_or(usual), q, "ignore");
}

/// What another tool than vlr says in `quantization_config`. kUnimplemented names what is not read.
Result<std::vector<QuantRule>> foreign_rules(const nlohmann::json& q) {
  const std::string method = text_of(q, "quant_method");
  if (method == "compressed-tensors") return compressed_tensors_rules(q);
  if (method == "fp8") {
    const auto block = q.find("weight_block_size");
    if (block != q.end() && !block->is_null())
      return not_read("quant_method 'fp8' with scales of blocks " + shown(*block));
    return rules_but_for(QuantMode::kFp8, q, "modules_to_not_convert");
  }
  if (!method.empty() && method != "bitsandbytes" && method != "vlr")
    return not_read("quant_method " + in_quotes(method));
  return bitsandbytes_rules(q);
}

/// A rule that matches nothing is a mistyped one.
Status check_rules(const WeightPlan& plan, std::span<const QuantRule> rules) {
  for (const QuantRule& rule : rules) {
    const auto has_effect = [&](const WeightPart& part) {
      return mode_of(canonical_name(part.source), {&rule, 1}).has_value();
    };
    const bool matched = std::ranges::any_of(
        plan, [&](const WeightSpec& spec) { return std::ranges::any_of(spec.parts, has_effect); });
    if (!matched) {
      return {
          Code::kInvalidArgument,
          fmt::format("quantisation rule {}: no linear layer of this model matches",
                      in_quotes(fmt::format("{}={}", rule.pattern, quant_mode_name(rule.mode))))};
    }
  }
  return {};
}

}  // namespace

std::span<const ModeInfo> quant_modes() { return kModes; }

const ModeInfo& mode_info(QuantMode m) {
  for (const ModeInfo& info : kModes) {
    if (info.mode == m) return info;
  }
  std::abort();
}

QuantMode usual_mode(WeightFormat format) {
  for (const ModeInfo& info : kModes) {
    if (info.format == format && info.usual) return info.mode;
  }
  std::abort();
}

QuantMode decoding_mode(WeightFormat format) {
  for (const ModeInfo& info : kModes) {
    if (info.format == format && !is_w8a8(info.mode)) return info.mode;
  }
  std::abort();
}

std::string quant_mode_names() {
  std::string names;
  for (const ModeInfo& m : kModes) names += fmt::format("{}{}", names.empty() ? "" : ", ", m.name);
  return names;
}

Result<QuantMode> parse_quant_mode(std::string_view text) {
  for (const ModeInfo& m : kModes) {
    if (m.name == text) return m.mode;
  }
  return {Code::kInvalidArgument, fmt::format("quantisation must be one of {}, got {}",
                                              quant_mode_names(), in_quotes(text))};
}

Result<QuantRule> parse_quant_rule(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == text.npos || equals == 0) {
    return {Code::kInvalidArgument,
            fmt::format("a quantisation rule is PATTERN=MODE, as in vision=nf4, got {}",
                        in_quotes(text))};
  }
  VLR_ASSIGN_OR_RETURN(const QuantMode mode, parse_quant_mode(text.substr(equals + 1)));
  return QuantRule{std::string(text.substr(0, equals)), mode};
}

bool is_linear_weight(std::string_view name) {
  if (!name.ends_with(".weight")) return false;
  if (name.starts_with(weights::kTextLayers)) return name.find("_proj.") != name.npos;
  if (!name.starts_with(kVisual)) return false;
  return name.find(".attn.qkv.") != name.npos || name.find(".attn.proj.") != name.npos ||
         name.find(".linear_fc") != name.npos;
}

std::optional<QuantMode> mode_of(std::string_view canonical, std::span<const QuantRule> rules) {
  std::optional<QuantMode> mode;
  if (!is_linear_weight(canonical)) return mode;
  for (const QuantRule& rule : rules) {
    if (matches(rule.pattern, canonical)) mode = rule.mode;
  }
  return mode;
}

Result<StoredQuantization> parse_stored_quantization(std::string_view config_json) {
  StoredQuantization out;
  VLR_ASSIGN_OR_RETURN(const nlohmann::json config, parse_json(config_json));
  if (!config.is_object()) return out;
  if (const auto* mlx = object_at(config, "quantization"); mlx && mlx->contains("group_size"))
    return not_read("an MLX conversion ('quantization')");
  const nlohmann::json* found = object_at(config, "quantization_config");
  if (!found) found = object_at(config, "compression_config");  // as compressed-tensors once wrote
  if (!found) return out;
  const nlohmann::json& q = *found;
  if (!q.contains("vlr") || !q["vlr"].is_object()) {
    VLR_ASSIGN_OR_RETURN(out.rules, foreign_rules(q));
    return out;
  }
  const nlohmann::json& vlr = q["vlr"];
  const auto wrong = [](std::string_view key, std::string_view expected) {
    return Status(Code::kInvalidArgument,
                  fmt::format("quantization_config.vlr.{} must be {}", key, expected));
  };
  if (vlr.contains("rules")) {
    if (!vlr["rules"].is_array()) return wrong("rules", "a list of texts");
    for (const nlohmann::json& rule : vlr["rules"]) {
      if (!rule.is_string()) return wrong("rules", "a list of texts");
      auto parsed = parse_quant_rule(rule.get<std::string>());
      if (!parsed) return parsed.error().with_context("quantization_config.vlr.rules");
      if (stored_format(parsed->mode) == WeightFormat::kInt8) out.int8_mode = parsed->mode;
      out.rules.push_back(*std::move(parsed));
    }
  }
  for (const auto& [key, values] :
       {std::pair("probe_decoded", &out.probe.decoded), std::pair("probe", &out.probe.before)}) {
    if (!vlr.contains(key)) continue;
    if (!vlr[key].is_array()) return wrong(key, "a list of numbers");
    for (const nlohmann::json& value : vlr[key]) {
      if (!value.is_number() || !std::isfinite(value.get<float>()))
        return wrong(key, "a list of numbers");
      values->push_back(value.get<float>());
    }
  }
  if (vlr.contains("dense_checksums")) {
    if (!vlr["dense_checksums"].is_object()) return wrong("dense_checksums", "an object");
    for (const auto& [name, value] : vlr["dense_checksums"].items()) {
      const std::string digits = value.is_string() ? value.get<std::string>() : "";
      uint64_t sum = 0;
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), sum, 16);
      if (digits.size() != 16 || error != std::errc() || end != digits.data() + digits.size())
        return wrong("dense_checksums", "16 hexadecimal digits a tensor");
      out.dense_checksums.emplace(name, sum);
    }
  }
  return out;
}

Result<StoredQuantization> read_stored_quantization(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kConfigBytes));
  auto stored = parse_stored_quantization(text);
  if (!stored) return stored.error().with_context(path);
  return stored;
}

std::string_view quant_name(const QuantModes& modes) {
  if (modes.empty()) return quant_mode_name(QuantMode::kNone);
  const QuantMode first = modes.begin()->second;
  const bool same =
      std::ranges::all_of(modes, [&](const auto& entry) { return entry.second == first; });
  return same ? quant_mode_name(first) : "mixed";
}

Result<QuantModes> apply_quantization(WeightPlan& plan, std::span<const QuantRule> rules,
                                      const StoredQuantization& stored) {
  VLR_RETURN_IF_ERROR(check_rules(plan, rules));
  QuantModes modes;
  for (WeightSpec& spec : plan) {
    std::optional<QuantMode> mode;
    for (const WeightPart& part : spec.parts) {
      const std::string name = canonical_name(part.source);
      // A checkpoint's own rules say how what it stores wants to be computed, then the caller's.
      const std::optional<QuantMode> asked = mode_of(name, rules);
      QuantMode wanted = asked.value_or(QuantMode::kNone);
      if (part.stored != WeightFormat::kDense) {
        QuantMode own = part.stored == stored_format(stored.int8_mode) ? stored.int8_mode
                                                                       : usual_mode(part.stored);
        if (const auto ruled = mode_of(name, stored.rules);
            ruled && stored_format(*ruled) == part.stored)
          own = *ruled;
        wanted = asked.value_or(own);
        if (stored_format(wanted) != part.stored) {
          return {Code::kInvalidArgument,
                  fmt::format("{} is stored in {} and cannot be opened as {}", part.source,
                              weight_format_name(part.stored), quant_mode_name(wanted))};
        }
        if (!is_linear_weight(name)) {
          return {Code::kUnimplemented,
                  fmt::format("{} is stored in {}: vlr reads linear layers so", part.source,
                              weight_format_name(part.stored))};
        }
      }
      if (mode.value_or(wanted) != wanted) {
        return {Code::kInvalidArgument,
                fmt::format("{} is {} and {} {}: parts of one weight need one quantisation",
                            spec.parts[0].source, quant_mode_name(*mode), part.source,
                            quant_mode_name(wanted))};
      }
      mode = wanted;
    }
    if (!mode || *mode == QuantMode::kNone) continue;
    spec.format = stored_format(*mode);
    if (const std::string why = format_info(spec.format).refusal(spec.shape[1], format_parts(spec));
        !why.empty())
      return {Code::kUnimplemented, fmt::format("{}: {}", spec.name, why)};
    modes.emplace(spec.name, *mode);
  }
  return modes;
}

}  // namespace vlr
