#include "engine/placement/prepared_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "engine/placement/device_options.h"
#include "engine/placement/preset.h"
#include "model/synthetic.h"

namespace vlr {
namespace {

std::string config_path(const std::string& folder) {
  return (std::filesystem::path(folder) / "config.json").string();
}

/// What the headers of a folder's files say of where tensors begin: a plan that was made without
/// them takes every tensor for aligned. Files that are not there, or cannot be read, change nothing.
void set_alignment(WeightPlan& plan, const std::string& folder) {
  const auto checkpoint = Checkpoint::open(folder);
  if (!checkpoint) return;
  std::set<std::string, std::less<>> unaligned;
  for (const auto& [name, tensor] : checkpoint->tensors())
    if (!tensor.aligned()) unaligned.insert(canonical_name(name));
  for (WeightSpec& weight : plan) {
    for (WeightPart& part : weight.parts)
      part.aligned = !unaligned.contains(canonical_name(part.source));
  }
}

}  // namespace

Result<ModelSource> ModelSource::of_folder(const std::string& folder, ModelConfig config,
                                           HeadTokens head, const Log& log) {
  ModelSource out{.config = std::move(config)};
  VLR_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open(folder));
  VLR_ASSIGN_OR_RETURN(out.plan, make_weight_plan(out.config, checkpoint.tensors(), head));
  if (log) {
    const std::vector<std::string> unexpected =
        compare_names(out.config, checkpoint.tensors()).unexpected;
    if (!unexpected.empty()) {
      log(fmt::format("{}: {} tensors are not used, {} is the first", folder, unexpected.size(),
                      unexpected.front()));
    }
  }
  VLR_ASSIGN_OR_RETURN(out.stored, read_stored_quantization(config_path(folder)));
  out.checkpoint = std::move(checkpoint);
  return out;
}

Result<ModelSource> ModelSource::of_config(const std::string& folder, ModelConfig config) {
  ModelSource out{.config = std::move(config)};
  const StoredTensors tensors =
      checkpoint_without_data(out.config, out.config.dtype.value_or(DType::kBF16));
  VLR_ASSIGN_OR_RETURN(out.plan, make_weight_plan(out.config, tensors, {.yes = 0, .no = 1}));
  VLR_ASSIGN_OR_RETURN(out.stored, read_stored_quantization(config_path(folder)));
  // What the files are quantised in, by the rules that they were made with.
  for (WeightSpec& weight : out.plan) {
    for (WeightPart& part : weight.parts) {
      const auto mode = mode_of(canonical_name(part.source), out.stored.rules);
      part.stored = stored_format(mode.value_or(QuantMode::kNone));
    }
  }
  set_alignment(out.plan, folder);
  return out;
}

Result<ModelSource> ModelSource::synthetic(ModelConfig config, HeadTokens head, Fill fill) {
  ModelSource out{.config = std::move(config)};
  VLR_ASSIGN_OR_RETURN(out.plan,
                       make_weight_plan(out.config, checkpoint_without_data(out.config), head));
  out.fill = std::move(fill);
  return out;
}

Result<std::vector<QuantRule>> quant_rules(const Options& options) {
  std::vector<QuantRule> rules;
  if (!options.quant.empty()) {
    VLR_ASSIGN_OR_RETURN(const QuantMode mode, parse_quant_mode(options.quant));
    rules.push_back({"text", mode});
  }
  for (const std::string& text : options.quant_rules) {
    VLR_ASSIGN_OR_RETURN(QuantRule rule, parse_quant_rule(text));
    rules.push_back(std::move(rule));
  }
  return rules;
}

bool stored_quantized(const WeightPlan& plan) {
  return std::any_of(plan.begin(), plan.end(), [](const WeightSpec& spec) {
    return std::any_of(spec.parts.begin(), spec.parts.end(),
                       [](const WeightPart& part) { return part.stored != WeightFormat::kDense; });
  });
}

Result<QuantModes> prepare_plan(WeightPlan& plan, const Options& options,
                                const StoredQuantization& stored) {
  VLR_ASSIGN_OR_RETURN(const std::vector<QuantRule> rules, quant_rules(options));
  return apply_quantization(plan, rules, stored);
}

Result<PreparedModel> prepare(ModelSource source, Options& options, OpenDevice& device) {
  PreparedModel out;
  VLR_ASSIGN_OR_RETURN(const DType dtype, activation_dtype(options, device.spec(), source.config));
  const auto card = device.card_memory();
  VLR_ASSIGN_OR_RETURN(ResolvedPreset preset, resolve_preset(options, stored_quantized(source.plan),
                                                             card ? card->total : 0));
  out.preset = std::move(preset.explanation);
  VLR_ASSIGN_OR_RETURN(QuantModes modes, prepare_plan(source.plan, options, source.stored));
  out.stored_quantized = stored_quantized(source.plan);
  out.graph = graph_options(options, device, dtype, std::move(modes));
  out.source = std::move(source);
  return out;
}

}  // namespace vlr
