#include "engine/api/quantize_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "engine/runtime/safetensors.h"
#include "engine/weights/quantized_tensors.h"
#include "model/config.h"
#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr int64_t kConfigBytes = int64_t{4} << 20;

/// What transformers needs to load the checkpoint through bitsandbytes, and vlr's own rules. fp8 is
/// in compressed-tensors' layout, which declares itself otherwise; only vlr's part is written for
/// it.
ordered_json quantization_config(std::span<const QuantRule> rules,
                                 const std::set<WeightFormat>& formats,
                                 const std::vector<std::string>& dense_modules,
                                 std::span<const float> probe) {
  ordered_json q;
  if (formats == std::set{WeightFormat::kNf4}) {
    q = {{"quant_method", "bitsandbytes"},
         {"load_in_4bit", true},
         {"load_in_8bit", false},
         {"bnb_4bit_compute_dtype", "bfloat16"},
         {"bnb_4bit_quant_storage", "uint8"},
         {"bnb_4bit_quant_type", "nf4"},
         {"bnb_4bit_use_double_quant", true},
         {"llm_int8_skip_modules", dense_modules}};
  } else if (formats == std::set{WeightFormat::kInt8}) {
    q = {{"quant_method", "bitsandbytes"},
         {"load_in_4bit", false},
         {"load_in_8bit", true},
         {"llm_int8_threshold", kOutlierThreshold},
         {"llm_int8_has_fp16_weight", false},
         {"llm_int8_skip_modules", dense_modules}};
  } else {
    q = {{"quant_method", "vlr"}};
  }
  ordered_json& vlr = q["vlr"];
  vlr["rules"] = ordered_json::array();
  for (const QuantRule& rule : rules)
    vlr["rules"].push_back(fmt::format("{}={}", rule.pattern, quant_mode_name(rule.mode)));
  if (!probe.empty()) vlr["probe"] = std::vector<float>(probe.begin(), probe.end());
  return q;
}

/// Tokenizer, templates and whatever else is there: all files but weights and what names them.
Status copy_other_files(const fs::path& from, const fs::path& to) {
  std::error_code error;
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code at_file;
    if (name == "config.json" || name.ends_with(".safetensors") ||
        name.ends_with(".safetensors.index.json") || !fs::is_regular_file(it->path(), at_file))
      continue;
    fs::copy_file(it->path(), to / name, fs::copy_options::overwrite_existing, at_file);
    if (at_file) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {}", (to / name).string(), at_file.message())};
    }
  }
  if (error) return {Code::kInvalidArgument, fmt::format("{}: {}", from.string(), error.message())};
  return {};
}

}  // namespace

Status quantize_checkpoint(const std::string& from, const std::string& to,
                           std::span<const QuantRule> rules, const QuantizeOptions& options,
                           ThreadPool& threads) {
  std::error_code error;
  if (fs::equivalent(from, to, error))
    return {Code::kInvalidArgument, to + ": must be another folder than the model's"};
  VLR_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(from));
  const std::string config_path = (fs::path(from) / "config.json").string();
  VLR_ASSIGN_OR_RETURN(const std::string config_text, read_text_file(config_path, kConfigBytes));
  ordered_json config = ordered_json::parse(config_text, nullptr, false);
  if (!config.is_object()) return {Code::kDataLoss, config_path + ": expected a JSON object"};

  // Shards: tensors in their order by name, cut where what they become would be too much.
  struct Planned {
    std::string name;
    QuantMode mode;
  };
  std::vector<std::vector<Planned>> shards(1);
  std::set<WeightFormat> formats;
  std::vector<std::string> dense_modules = {"lm_head"};
  int64_t total = 0, shard_bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    VLR_ASSIGN_OR_RETURN(const StoredWeight stored, stored_weight(checkpoint.tensors(), name));
    if (stored.format != WeightFormat::kDense) {
      return {Code::kInvalidArgument, fmt::format("{}: is in {} already; quantise the original",
                                                  name, weight_format_name(stored.format))};
    }
    const std::string canonical = canonical_name(name);
    const QuantMode mode = mode_of(canonical, rules).value_or(QuantMode::kNone);
    if (mode != QuantMode::kNone) {
      formats.insert(stored_format(mode));
      if (stored.shape.size() != 2 ||
          !format_info(stored_format(mode)).refusal(stored.shape[1], {}).empty()) {
        return {Code::kUnimplemented,
                fmt::format("{}: {} of a weight {}", name, quant_mode_name(mode),
                            describe_shape(stored.shape))};
      }
    } else if (is_linear_weight(canonical)) {
      dense_modules.push_back(name.substr(0, name.size() - std::string_view(".weight").size()));
    }
    // No less than what is written: at most a byte a value, and a little beside them.
    const int64_t bytes = mode == QuantMode::kNone ? tensor.bytes() : tensor.numel() * 5 / 4;
    if (!shards.back().empty() && shard_bytes + bytes > options.max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    total += tensor.bytes();
    shards.back().push_back({name, mode});
  }
  if (formats.empty())
    return {Code::kInvalidArgument, "the rules choose no linear layer of this checkpoint"};

  // What could not be opened is not written.
  VLR_ASSIGN_OR_RETURN(const ModelConfig model, read_config(config_path));
  VLR_ASSIGN_OR_RETURN(WeightPlan plan,
                       make_weight_plan(model, checkpoint.tensors(), {.yes = 0, .no = 1}));
  VLR_RETURN_IF_ERROR(apply_quantization(plan, rules, {}).error());

  std::vector<float> probe;
  if (options.probe) {
    VLR_ASSIGN_OR_RETURN(probe, options.probe());
  }
  fs::create_directories(to, error);
  if (error) return {Code::kInvalidArgument, fmt::format("{}: {}", to, error.message())};
  // Whoever reads the folder before all is there finds no config.
  fs::remove(fs::path(to) / "config.json", error);
  fs::remove(fs::path(to) / "model.safetensors.index.json", error);
  std::map<std::string, std::string> weight_map;
  int64_t done = 0, written_bytes = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    std::map<std::string, std::vector<std::byte>> data;
    std::vector<NamedShape> shapes;
    const std::string file = shard_file_name(i, shards.size());
    for (const Planned& p : shards[i]) {
      const StoredTensor& tensor = *checkpoint.find(p.name);
      const auto bytes = std::span(tensor.data, static_cast<size_t>(tensor.bytes()));
      if (p.mode == QuantMode::kNone) {
        shapes.push_back({static_cast<const StoredShape&>(tensor), p.name});
      } else {
        std::vector<std::byte> copy;
        if (!tensor.aligned()) copy.assign(bytes.begin(), bytes.end());
        const ConstTensor dense(copy.empty() ? bytes.data() : copy.data(), tensor.dtype,
                                {tensor.shape[0], tensor.shape[1]});
        const auto quantised = quantize_weight(dense, stored_format(p.mode), threads);
        if (!quantised) return quantised.error().with_context(p.name);
        for (WrittenTensor& t : tensors_to_write(p.name, *quantised, tensor.dtype)) {
          data.emplace(t.shape.name, std::move(t.bytes));
          shapes.push_back(std::move(t.shape));
        }
      }
      done += tensor.bytes();
      if (options.progress) options.progress(done, total);
    }
    for (const NamedShape& t : shapes) {
      weight_map.emplace(t.name, file);
      written_bytes += t.bytes();
    }
    const auto fill = [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) -> Status {
      const auto it = data.find(t.name);
      const std::byte* source =
          it != data.end() ? it->second.data() : checkpoint.find(t.name)->data;
      std::memcpy(out.data(), source + begin, out.size());
      return {};
    };
    VLR_RETURN_IF_ERROR(write_safetensors((fs::path(to) / file).string(), shapes, fill));
  }
  if (shards.size() > 1) {
    const nlohmann::json index = {{"metadata", {{"total_size", written_bytes}}},
                                  {"weight_map", weight_map}};
    VLR_RETURN_IF_ERROR(write_text_file((fs::path(to) / "model.safetensors.index.json").string(),
                                        index.dump(2) + "\n"));
  }
  VLR_RETURN_IF_ERROR(copy_other_files(from, to));
  config["quantization_config"] = quantization_config(rules, formats, dense_modules, probe);
  return write_text_file((fs::path(to) / "config.json").string(), config.dump(2) + "\n");
}

}  // namespace vlr
