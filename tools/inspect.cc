/// vlr inspect: what a checkpoint holds, and the graphs that are made from it.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "engine/placement/prepared_model.h"
#include "engine/runtime/safetensors.h"
#include "engine/weights/quantized_tensors.h"
#include "kernels/core/format_bytes.h"
#include "model/config.h"
#include "model/quantization.h"
#include "model/text_decoder.h"
#include "model/vision_encoder.h"
#include "model/weight_plan.h"
#include "tools/common.h"

namespace vlr::tools {
namespace {

using nlohmann::ordered_json;

/// Tensors that are weights themselves, and bytes with what stands beside them.
struct FormatTotals {
  int64_t weights = 0, parameters = 0, bytes = 0;
};

/// What the tensor is as a weight; as it is stored where it makes no sense as one.
StoredWeight as_weight(const StoredTensors& tensors, std::string_view name) {
  auto weight = stored_weight(tensors, name);
  return weight ? *std::move(weight)
                : StoredWeight{WeightFormat::kDense, tensors.find(name)->second.shape};
}

std::map<WeightFormat, FormatTotals> totals_of(const StoredTensors& tensors) {
  std::map<WeightFormat, FormatTotals> out;
  for (const auto& [name, tensor] : tensors) {
    if (belongs_to_quantized(tensors, name)) continue;
    const StoredWeight weight = as_weight(tensors, name);
    FormatTotals& totals = out[weight.format];
    totals.weights += 1;
    totals.parameters += StoredShape{tensor.dtype, weight.shape}.numel();
    totals.bytes += tensor.bytes();
    if (weight.format == WeightFormat::kDense) continue;
    const std::string module = name.substr(0, name.rfind('.') + 1);
    for (auto it = tensors.lower_bound(module); it != tensors.end(); ++it) {
      if (!it->first.starts_with(module)) break;
      if (belongs_to_quantized(tensors, it->first)) totals.bytes += it->second.bytes();
    }
  }
  return out;
}

/// What is said of a checkpoint.
struct Contents {
  const ModelConfig& config;
  const Checkpoint& checkpoint;
  NameReport report;
  std::map<WeightFormat, FormatTotals> formats;
  int64_t parameters = 0, bytes = 0;

  Contents(const ModelConfig& model_config, const Checkpoint& files)
      : config(model_config),
        checkpoint(files),
        report(compare_names(config, files.tensors())),
        formats(totals_of(files.tensors())) {
    for (const auto& [format, totals] : formats) parameters += totals.parameters;
    for (const auto& [name, tensor] : files.tensors()) bytes += tensor.bytes();
  }
};

double millions(int64_t n) { return static_cast<double>(n) / 1e6; }

ordered_json to_json(const Contents& c, const std::string& model) {
  ordered_json out = {{"model", model},
                      {"parameters", c.parameters},
                      {"bytes", c.bytes},
                      {"files", c.checkpoint.files().size()}};
  for (const auto& [format, totals] : c.formats) {
    out["formats"][weight_format_name(format)] = {
        {"weights", totals.weights}, {"parameters", totals.parameters}, {"bytes", totals.bytes}};
  }
  const StoredTensors& tensors = c.checkpoint.tensors();
  for (const auto& [name, tensor] : tensors) {
    const StoredWeight weight = as_weight(tensors, name);
    ordered_json& entry = out["tensors"].emplace_back();
    entry = {{"name", name},
             {"canonical", canonical_name(name)},
             {"dtype", dtype_name(tensor.dtype)},
             {"shape", weight.shape},
             {"file", c.checkpoint.files()[static_cast<size_t>(tensor.file_idx)].path()},
             {"offset", tensor.file_offset},
             {"bytes", tensor.bytes()}};
    if (!belongs_to_quantized(tensors, name)) entry["format"] = weight_format_name(weight.format);
  }
  out["missing"] = c.report.missing;
  out["wrong_shape"] = c.report.wrong_shape;
  out["ambiguous"] = c.report.ambiguous;
  out["packed"] = c.report.packed;
  out["harmful"] = c.report.harmful;
  out["unexpected"] = c.report.unexpected;
  return out;
}

/// Sizes of the model and of its files.
void print_sizes(const Contents& c) {
  const TextConfig& t = c.config.text_config;
  fmt::print(
      "text    {} layers, hidden {}, {} heads of {} ({} for keys and values), MLP {}, {} embedding "
      "rows, {} head\n",
      t.num_hidden_layers, t.hidden_size, t.num_attention_heads, t.head_dim, t.num_key_value_heads,
      t.intermediate_size, t.vocab_size, c.config.tie_word_embeddings ? "tied" : "own");
  if (const auto& v = c.config.vision_config) {
    fmt::print("vision  {} blocks, hidden {}, {} heads of {}, MLP {}, DeepStack after blocks {}\n",
               v->depth, v->hidden_size, v->num_heads, v->head_dim(), v->intermediate_size,
               fmt::join(v->deepstack_visual_indexes, ", "));
  }
  fmt::print("files   {} with {} tensors, {:.2f} M parameters, {}\n", c.checkpoint.files().size(),
             c.checkpoint.tensors().size(), millions(c.parameters), format_bytes(c.bytes));
  const bool quantised = c.formats.size() > 1 || !c.formats.contains(WeightFormat::kDense);
  if (!quantised) return;
  for (const auto& [format, totals] : c.formats) {
    fmt::print("{:<7} {} weights, {:.2f} M parameters, {}\n", weight_format_name(format),
               totals.weights, millions(totals.parameters), format_bytes(totals.bytes));
  }
}

void print_tensors(const StoredTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const StoredWeight weight = as_weight(tensors, name);
    fmt::print("  {:<72} {}", name, describe(static_cast<const StoredShape&>(tensor)));
    if (weight.format != WeightFormat::kDense) {
      fmt::print(": {}{}", weight_format_name(weight.format), describe_shape(weight.shape));
    }
    fmt::print("\n");
  }
}

/// Tensors that are not as the model wants them.
void print_report(const NameReport& report) {
  const auto list = [](std::string_view what, const std::vector<std::string>& lines) {
    for (const std::string& line : lines) fmt::print("{}: {}\n", what, line);
  };
  list("missing", report.missing);
  list("wrong shape", report.wrong_shape);
  list("ambiguous", report.ambiguous);
  list("packed", report.packed);
  list("changes scores", report.harmful);
  list("unexpected", report.unexpected);
}

struct InspectCommand {
  std::string model, graph, pass = "score";
  bool tensors = false, json = false;
  int run() const;
  int show_graph(const ModelConfig& config) const;
};

int InspectCommand::show_graph(const ModelConfig& config) const {
  if (pass == "vision" && !config.vision_config)
    return fail({Code::kInvalidArgument, "this checkpoint has no vision tower"});
  const Graph g = pass == "vision"   ? build_vision_graph(*config.vision_config)
                  : pass == "prefix" ? build_text_graph(config, TextGraph::kPrefix)
                                     : build_text_graph(config, TextGraph::kScore);
  fmt::print("{}", graph == "dot" ? g.to_dot() : graph == "json" ? g.to_json() : g.to_text());
  return kServed;
}

/// Whether it would open, as far as names, shapes and formats go; else, why it would not.
int usable(const ModelFolder& folder) {
  auto plan = make_weight_plan(folder.config, folder.checkpoint->tensors(), {.yes = 0, .no = 1});
  if (!plan) return fail(plan.error());
  const auto modes = apply_quantization(*plan, {}, folder.stored);
  return modes ? kServed : fail(modes.error());
}

int InspectCommand::run() const {
  const auto folder = ModelFolder::open(
      model, graph.empty() ? ModelFolder::Weights::kNeeded : ModelFolder::Weights::kIfThere);
  if (!folder) return fail(folder.error());
  if (!graph.empty()) return show_graph(folder->config);
  const Contents contents(folder->config, *folder->checkpoint);
  if (json) {
    fmt::print("{}\n", to_json(contents, model).dump(1));
    return usable(*folder);
  }
  print_sizes(contents);
  if (tensors) print_tensors(folder->checkpoint->tensors());
  print_report(contents.report);
  return usable(*folder);
}

}  // namespace

void add_inspect(CLI::App& app, Run& run) {
  auto command = std::make_shared<InspectCommand>();
  app.add_option("-m,--model", command->model, "Checkpoint folder")->required();
  app.add_flag("--tensors", command->tensors, "List every tensor");
  app.add_flag("--json", command->json, "As JSON, with every tensor");
  app.add_option("--graph", command->graph, "Print a graph instead: text | json | dot")
      ->check(CLI::IsMember({"text", "json", "dot"}));
  app.add_option("--pass", command->pass, "Which graph")
      ->check(CLI::IsMember({"score", "prefix", "vision"}))
      ->capture_default_str();
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
