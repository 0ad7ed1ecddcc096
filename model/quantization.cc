#include "model/quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

constexpr ModeInfo kModes[] = {
    {QuantMode::kNone, "none", WeightFormat::kDense, Computes::kDense, true},
    {QuantMode::kNf4, "nf4", WeightFormat::kNf4, Computes::kWeightOnly, true},
    {QuantMode::kInt8, "int8", WeightFormat::kInt8, Computes::kW8A8, false},
    {QuantMode::kInt8Weight, "int8-weight", WeightFormat::kInt8, Computes::kWeightOnly, false},
    {QuantMode::kLlmInt8, "llm-int8", WeightFormat::kInt8, Computes::kW8A8Apart, true},
    {QuantMode::kLlmInt8Batch, "llm-int8-batch", WeightFormat::kInt8, Computes::kW8A8Apart, false},
    {QuantMode::kFp8, "fp8", WeightFormat::kFp8, Computes::kW8A8, true},
    {QuantMode::kMxfp4, "mxfp4", WeightFormat::kMxfp4, Computes::kWeightOnly, true},
};

constexpr int64_t kConfigBytes = int64_t{4} << 20;
constexpr std::string_view kVisual = "model.visual.";

bool matches(std::string_view pattern, std::string_view canonical) {
  if (pattern == "text") return canonical.starts_with(weights::kTextLayers);
  if (pattern == "vision") return canonical.starts_with(kVisual);
  return canonical.find(pattern) != canonical.npos;
}

/// What bitsandbytes' own configuration says: all linear layers, but for the modules to skip.
std::vector<QuantRule> bitsandbytes_rules(const nlohmann::json& q) {
  const auto flag = [&](std::string_view key) {
    return q.contains(key) && q[key].is_boolean() && q[key].get<bool>();
  };
  std::vector<QuantRule> rules;
  if (!flag("load_in_4bit") && !flag("load_in_8bit")) return rules;
  const QuantMode mode = flag("load_in_4bit") ? QuantMode::kNf4 : QuantMode::kLlmInt8;
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

/// A rule that matches nothing is a mistyped one.
Status check_rules(const WeightPlan& plan, std::span<const QuantRule> rules) {
  for (const QuantRule& rule : rules) {
    const auto has_effect = [&](const WeightPart& part) {
      return mode_of(canonical_name(part.source), {&rule, 1}).has_value();
    };
    const bool matched = std::ranges::any_of(
        plan, [&](const WeightSpec& spec) { return std::ranges::any_of(spec.parts, has_effect); });
    if (!matched) {
      return {Code::kInvalidArgument,
              fmt::format("quantisation rule '{}={}': no linear layer of this model matches",
                          rule.pattern, quant_mode_name(rule.mode))};
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

std::string quant_mode_names() {
  std::string names;
  for (const ModeInfo& m : kModes) names += fmt::format("{}{}", names.empty() ? "" : ", ", m.name);
  return names;
}

Result<QuantMode> parse_quant_mode(std::string_view text) {
  for (const ModeInfo& m : kModes) {
    if (m.name == text) return m.mode;
  }
  return {Code::kInvalidArgument,
          fmt::format("quantisation must be one of {}, got '{}'", quant_mode_names(), text)};
}

Result<QuantRule> parse_quant_rule(std::string_view text) {
  const size_t equals = text.rfind('=');
  if (equals == text.npos || equals == 0) {
    return {Code::kInvalidArgument,
            fmt::format("a quantisation rule is PATTERN=MODE, as in vision=nf4, got '{}'", text)};
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
  if (!config.is_object() || !config.contains("quantization_config")) return out;
  const nlohmann::json& q = config["quantization_config"];
  if (!q.is_object()) return out;
  if (!q.contains("vlr") || !q["vlr"].is_object()) {
    out.rules = bitsandbytes_rules(q);
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
  if (vlr.contains("probe")) {
    if (!vlr["probe"].is_array()) return wrong("probe", "a list of numbers");
    for (const nlohmann::json& value : vlr["probe"]) {
      if (!value.is_number() || !std::isfinite(value.get<float>()))
        return wrong("probe", "a list of numbers");
      out.probe.push_back(value.get<float>());
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
