#include "engine/placement/prepared_model.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/placement/device_options.h"
#include "engine/placement/preset.h"
#include "engine/runtime/file_reader.h"
#include "engine/weights/folder_writer.h"
#include "kernels/core/descriptor.h"
#include "kernels/core/regular_file.h"
#include "model/json.h"
#include "model/synthetic.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTakes =
    "vlr takes a folder with config.json, tokenizer.json and weights in safetensors";

/// The first bytes of a file.
Result<std::string> first_bytes(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const int fd, open_regular(path));
  std::string bytes(64, '\0');
  const ssize_t n = ::read(fd, bytes.data(), bytes.size());
  ::close(fd);
  if (n < 0) return {Code::kDataLoss, path + ": " + std::generic_category().message(errno)};
  bytes.resize(static_cast<size_t>(n));
  return bytes;
}

bool is_hub_id(const std::string& path) {
  const size_t slash = path.find('/');
  return slash != path.npos && slash > 0 && slash + 1 < path.size() &&
         path.find('/', slash + 1) == path.npos && path[0] != '.' && path[0] != '~';
}

/// What was given is a folder.
Status check_is_folder(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return {};
  if (!fs::exists(status)) {
    const std::string what = path + ": " + std::generic_category().message(ENOENT);
    if (!is_hub_id(path)) return {Code::kNotFound, fmt::format("{}; {}", what, kTakes)};
    return {Code::kNotFound,
            fmt::format("{}; {}. A model of that name on a hub has to be downloaded first", what,
                        kTakes)};
  }
  const auto bytes = first_bytes(path);
  const bool gguf = bytes && bytes->starts_with("GGUF");
  return {gguf ? Code::kUnimplemented : Code::kInvalidArgument,
          fmt::format("{}: {}; {}", path, gguf ? "a GGUF file, which is not read" : "not a folder",
                      kTakes)};
}

/// Weights in a folder that are of another format.
std::string other_weights(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string(),
                      suffix = it->path().extension().string();
    if (suffix == ".gguf" || suffix == ".pt" || suffix == ".pth" || suffix == ".onnx" ||
        suffix == ".npz" || (suffix == ".bin" && name.starts_with("pytorch_model")))
      names.push_back(name);
  }
  return names.empty() ? "" : *std::ranges::min_element(names);
}

Status check_beside(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "adapter_config.json", error)) {
    return {Code::kUnimplemented,
            fmt::format("{}: an adapter, which is not applied; merge it into the model",
                        (folder / "adapter_config.json").string())};
  }
  // Read by others: here it has to be a file, and to be there.
  const std::string tokenizer = (folder / "tokenizer.json").string();
  if (!fs::exists(tokenizer, error)) return {};
  VLR_ASSIGN_OR_RETURN(const std::string bytes, first_bytes(tokenizer));
  return is_lfs_pointer(bytes) ? lfs_pointer(tokenizer) : Status();
}

Result<FileIdentity> identity_of(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const int fd, open_regular(path));
  const Descriptor file(fd);
  return FileIdentity::of(fd, path);
}

}  // namespace

Result<ModelFolder> ModelFolder::open(const std::string& path, Weights weights) {
  if (path.empty())
    return {Code::kInvalidArgument, fmt::format("the model's path is empty; {}", kTakes)};
  VLR_RETURN_IF_ERROR(check_is_folder(path));
  const fs::path folder(path);
  VLR_RETURN_IF_ERROR(check_beside(folder));
  ModelFolder out{.path = path, .config = {}};
  const std::string config = (folder / "config.json").string();
  const std::string other = other_weights(path);
  std::error_code error;
  if (!other.empty() && !fs::exists(config, error)) {
    return {Code::kUnimplemented,
            fmt::format("{}: {} and no config.json; {}", path, other, kTakes)};
  }
  if (const std::string why = unfinished_write(folder); !why.empty()) return {Code::kNotFound, why};
  VLR_ASSIGN_OR_RETURN(const FileIdentity before, identity_of(config));
  VLR_ASSIGN_OR_RETURN(out.config, read_config(config));
  VLR_ASSIGN_OR_RETURN(out.stored, read_stored_quantization(config));
  auto checkpoint = Checkpoint::open(path);
  // Writers take it away first and put it there last: weights between are of the same checkpoint.
  VLR_RETURN_IF_ERROR(check_same_file(config, before));
  if (checkpoint) {
    out.checkpoint = *std::move(checkpoint);
    return out;
  }
  const bool missing = checkpoint.error().code() == Code::kNotFound;
  if (missing && !other.empty())
    return {Code::kUnimplemented, fmt::format("{}: {} is not read; {}", path, other, kTakes)};
  if (!missing || weights == Weights::kNeeded) return checkpoint.error();
  return out;
}

Result<ModelSource> ModelSource::of_folder(ModelFolder folder, HeadTokens head, const Log& log) {
  ModelSource out{.config = std::move(folder.config), .stored = std::move(folder.stored)};
  const StoredTensors& tensors = folder.checkpoint->tensors();
  VLR_ASSIGN_OR_RETURN(out.plan, make_weight_plan(out.config, tensors, head));
  if (log) {
    const std::vector<std::string> unexpected = compare_names(out.config, tensors).unexpected;
    if (!unexpected.empty()) {
      log(fmt::format("{}: {} tensors are not used, {} is the first", folder.path,
                      unexpected.size(), unexpected.front()));
    }
  }
  out.checkpoint = std::move(folder.checkpoint);
  return out;
}

Result<ModelSource> ModelSource::of_shapes(ModelFolder folder) {
  constexpr HeadTokens kAny{.yes = 0, .no = 1};
  ModelSource out{.config = std::move(folder.config), .stored = std::move(folder.stored)};
  if (folder.checkpoint) {
    VLR_ASSIGN_OR_RETURN(out.plan,
                         make_weight_plan(out.config, folder.checkpoint->tensors(), kAny));
    return out;
  }
  const StoredTensors tensors =
      checkpoint_without_data(out.config, out.config.dtype.value_or(DType::kBF16));
  VLR_ASSIGN_OR_RETURN(out.plan, make_weight_plan(out.config, tensors, kAny));
  // What the files are quantised in, by the rules that they were made with.
  for (WeightSpec& weight : out.plan) {
    for (WeightPart& part : weight.parts) {
      const auto mode = mode_of(canonical_name(part.source), out.stored.rules);
      part.stored = stored_format(mode.value_or(QuantMode::kNone));
    }
  }
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
