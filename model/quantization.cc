#include "model/quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

constexpr std::array<std::pair<QuantMode, std::string_view>, 7> kModes = {
    {{QuantMode::kNone, "none"},
     {QuantMode::kNf4, "nf4"},
     {QuantMode::kInt8, "int8"},
     {QuantMode::kInt8Weight, "int8-weight"},
     {QuantMode::kLlmInt8, "llm-int8"},
     {QuantMode::kLlmInt8Batch, "llm-int8-batch"},
     {QuantMode::kFp8, "fp8"}}};

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

/// Codes are pairs of a row's values, and parts end where blocks do.
Status check_nf4(const WeightSpec& spec) {
  const int64_t cols = spec.shape[1];
  if (cols % 2 != 0) {
    return {Code::kUnimplemented,
            fmt::format("{}: nf4 wants an even number of columns, got {}", spec.name, cols)};
  }
  for (size_t i = 0; i + 1 < spec.parts.size(); ++i) {
    const int64_t values = spec.parts[i].num_rows * cols;
    if (values % kNf4Block == 0) continue;
    return {Code::kUnimplemented,
            fmt::format("{}: in nf4 {} values of {} are no whole blocks of {}, and other rows "
                        "follow",
                        spec.name, values, spec.parts[i].source, kNf4Block)};
  }
  return {};
}

}  // namespace

std::string_view quant_mode_name(QuantMode m) {
  for (const auto& [mode, name] : kModes) {
    if (mode == m) return name;
  }
  return "?";
}

Result<QuantMode> parse_quant_mode(std::string_view text) {
  std::string names;
  for (const auto& [mode, name] : kModes) {
    if (name == text) return mode;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  }
  return {Code::kInvalidArgument,
          fmt::format("quantisation must be one of {}, got '{}'", names, text)};
}

WeightFormat stored_format(QuantMode m) {
  switch (m) {
    case QuantMode::kNone:
      return WeightFormat::kDense;
    case QuantMode::kNf4:
      return WeightFormat::kNf4;
    case QuantMode::kFp8:
      return WeightFormat::kFp8;
    default:
      return WeightFormat::kInt8;
  }
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
        QuantMode own = part.stored == WeightFormat::kNf4   ? QuantMode::kNf4
                        : part.stored == WeightFormat::kFp8 ? QuantMode::kFp8
                                                            : stored.int8_mode;
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
    if (spec.format == WeightFormat::kNf4) VLR_RETURN_IF_ERROR(check_nf4(spec));
    modes.emplace(spec.name, *mode);
  }
  return modes;
}

}  // namespace vlr
