#include "engine/api/quantize_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "engine/placement/prepared_model.h"
#include "engine/runtime/safetensors.h"
#include "engine/tasks/pair_score.h"
#include "engine/weights/folder_writer.h"
#include "engine/weights/quantized_tensors.h"
#include "kernels/core/json_tree.h"
#include "model/config.h"
#include "model/json.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

using DenseChecksums = std::map<std::string, uint64_t>;  // by tensor

constexpr int64_t kConfigBytes = int64_t{4} << 20;

/// What transformers needs to load the checkpoint through bitsandbytes, and vlr's own rules. fp8 is
/// in compressed-tensors' layout, which declares itself otherwise; only vlr's part is written for
/// it.
ordered_json quantization_config(std::span<const QuantRule> rules,
                                 const std::set<WeightFormat>& formats,
                                 const std::vector<std::string>& dense_modules,
                                 const DenseChecksums& checksums, std::span<const float> probe) {
  ordered_json q;
  if (formats == std::set{WeightFormat::kNf4} || formats == std::set{WeightFormat::kFp4}) {
    q = {{"quant_method", "bitsandbytes"},
         {"load_in_4bit", true},
         {"load_in_8bit", false},
         {"bnb_4bit_compute_dtype", "bfloat16"},
         {"bnb_4bit_quant_storage", "uint8"},
         {"bnb_4bit_quant_type", weight_format_name(*formats.begin())},
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
  for (const auto& [name, sum] : checksums)
    vlr["dense_checksums"][name] = fmt::format("{:016x}", sum);
  if (!probe.empty()) vlr["probe_decoded"] = std::vector<float>(probe.begin(), probe.end());
  return q;
}

Result<ordered_json> read_config_json(const std::string& path) {
  VLR_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kConfigBytes));
  auto tree = JsonTree<ordered_json>::parse(text, kConfigBytes);
  if (!tree) return tree.error().with_context(path);
  ordered_json config = (*std::move(tree)).take();
  if (!config.is_object()) return {Code::kDataLoss, path + ": expected a JSON object"};
  return config;
}

/// A tensor of the checkpoint and what it becomes.
struct PlannedTensor {
  std::string name;
  QuantMode mode;
};
using Shard = std::vector<PlannedTensor>;

/// What is written: all tensors, in their order by name.
struct ShardPlan {
  std::vector<Shard> shards = {Shard()};
  std::set<WeightFormat> formats;                        // that tensors become
  std::vector<std::string> dense_modules = {"lm_head"};  // linear layers that stay as they are
  int64_t bytes_to_read = 0;
};

/// kUnimplemented: there are no codes of that format for that shape.
Status check_shape(const std::string& name, QuantMode mode, const StoredWeight& weight) {
  if (weight.shape.size() == 2 &&
      format_info(stored_format(mode)).refusal(weight.shape[1], {}).empty())
    return {};
  return {Code::kUnimplemented, fmt::format("{}: {} of a weight {}", name, quant_mode_name(mode),
                                            describe_shape(weight.shape))};
}

/// Shards are cut where what tensors become would be more than `max_shard_bytes`.
Result<ShardPlan> plan_shards(const StoredTensors& tensors, std::span<const QuantRule> rules,
                              int64_t max_shard_bytes) {
  ShardPlan plan;
  int64_t shard_bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    VLR_ASSIGN_OR_RETURN(const StoredWeight stored, stored_weight(tensors, name));
    if (stored.format != WeightFormat::kDense) {
      return {Code::kInvalidArgument, fmt::format("{}: is in {} already; quantise the original",
                                                  name, weight_format_name(stored.format))};
    }
    const std::string canonical = canonical_name(name);
    const QuantMode mode = mode_of(canonical, rules).value_or(QuantMode::kNone);
    if (mode != QuantMode::kNone) {
      plan.formats.insert(stored_format(mode));
      VLR_RETURN_IF_ERROR(check_shape(name, mode, stored));
    } else if (is_linear_weight(canonical)) {
      plan.dense_modules.push_back(
          name.substr(0, name.size() - std::string_view(".weight").size()));
    }
    // No less than what is written: at most a byte a value, and a little beside them.
    const int64_t bytes = mode == QuantMode::kNone ? tensor.bytes() : tensor.numel() * 5 / 4;
    if (!plan.shards.back().empty() && shard_bytes + bytes > max_shard_bytes) {
      plan.shards.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    plan.bytes_to_read += tensor.bytes();
    plan.shards.back().push_back({name, mode});
  }
  if (plan.formats.empty())
    return {
        Code::kInvalidArgument,
        "the rules choose no linear layer of this checkpoint; --quant chooses those of the text "
        "decoder"};
  return plan;
}

/// What could not be opened is not written.
Status check_opens(const ModelConfig& model, const StoredTensors& tensors,
                   std::span<const QuantRule> rules) {
  VLR_ASSIGN_OR_RETURN(WeightPlan plan, make_weight_plan(model, tensors, {.yes = 0, .no = 1}));
  return apply_quantization(plan, rules, {}).error();
}

/// Whether a checkpoint is one of vlr's making, by its config.json.
bool is_quantized_by_vlr(std::string_view config) {
  const auto json = parse_json(config);
  if (!json || !json->is_object()) return false;
  const auto q = json->find("quantization_config");
  return q != json->end() && q->is_object() && q->contains("vlr");
}

/// Quantises a plan's tensors and writes its files, one after the other.
class ShardWriter {
 public:
  /// All of them must outlive it.
  ShardWriter(const Checkpoint& checkpoint, const fs::path& to, const QuantizeOptions& options,
              ThreadPool& threads)
      : checkpoint_(checkpoint), to_(to), options_(options), threads_(threads) {}

  Status write(const ShardPlan& plan);
  /// Of what was written as it was.
  const DenseChecksums& dense_checksums() const { return dense_checksums_; }

 private:
  /// Of one file.
  struct Contents {
    std::vector<NamedShape> shapes;
    std::map<std::string, std::vector<std::byte>> data;  // of what is not in the checkpoint
  };
  Status add(const PlannedTensor& planned, Contents& contents);
  Status write_file(const std::string& file, const Contents& contents);
  Status write_index() const;

  const Checkpoint& checkpoint_;
  const fs::path& to_;
  const QuantizeOptions& options_;
  ThreadPool& threads_;
  std::map<std::string, std::string> weight_map_;  // tensor -> file
  DenseChecksums dense_checksums_;
  int64_t written_bytes_ = 0;
};

Status ShardWriter::write(const ShardPlan& plan) {
  int64_t done = 0;
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    Contents contents;
    for (const PlannedTensor& planned : plan.shards[i]) {
      VLR_RETURN_IF_ERROR(add(planned, contents));
      done += checkpoint_.find(planned.name)->bytes();
      if (options_.progress) options_.progress(done, plan.bytes_to_read);
    }
    VLR_RETURN_IF_ERROR(write_file(shard_file_name(i, plan.shards.size()), contents));
  }
  return plan.shards.size() > 1 ? write_index() : Status();
}

Status ShardWriter::add(const PlannedTensor& planned, Contents& contents) {
  const StoredTensor& tensor = *checkpoint_.find(planned.name);
  const auto bytes = std::span(tensor.data, static_cast<size_t>(tensor.bytes()));
  if (planned.mode == QuantMode::kNone) {
    contents.shapes.push_back({static_cast<const StoredShape&>(tensor), planned.name});
    dense_checksums_.emplace(planned.name, checksum_of(bytes));
    return {};
  }
  std::vector<std::byte> copy;
  if (!tensor.aligned()) copy.assign(bytes.begin(), bytes.end());
  const ConstTensor dense(copy.empty() ? bytes.data() : copy.data(), tensor.dtype,
                          {tensor.shape[0], tensor.shape[1]});
  const auto quantised = quantize_weight(dense, stored_format(planned.mode), threads_);
  if (!quantised) return quantised.error().with_context(planned.name);
  for (WrittenTensor& t : tensors_to_write(planned.name, *quantised, tensor.dtype)) {
    contents.data.emplace(t.shape.name, std::move(t.bytes));
    contents.shapes.push_back(std::move(t.shape));
  }
  return {};
}

Status ShardWriter::write_file(const std::string& file, const Contents& contents) {
  for (const NamedShape& t : contents.shapes) {
    weight_map_.emplace(t.name, file);
    written_bytes_ += t.bytes();
  }
  const auto fill = [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) -> Status {
    const auto it = contents.data.find(t.name);
    const std::byte* source =
        it != contents.data.end() ? it->second.data() : checkpoint_.find(t.name)->data;
    std::memcpy(out.data(), source + begin, out.size());
    return {};
  };
  return write_safetensors((to_ / file).string(), contents.shapes, fill);
}

Status ShardWriter::write_index() const {
  const nlohmann::json index = {{"metadata", {{"total_size", written_bytes_}}},
                                {"weight_map", weight_map_}};
  return write_text_file((to_ / "model.safetensors.index.json").string(), index.dump(2) + "\n");
}

/// Tokenizer, templates and whatever else is there: all files but weights, packed ones too, and what
/// names them.
Result<std::vector<std::string>> other_files(const fs::path& folder) {
  std::vector<std::string> out;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    std::error_code at_file;
    if (name != "config.json" && name.find(".safetensors") == name.npos &&
        fs::is_regular_file(it->path(), at_file))
      out.push_back(std::move(name));
  }
  if (error)
    return {Code::kInvalidArgument, fmt::format("{}: {}", folder.string(), error.message())};
  return out;
}

Status copy_files(const fs::path& from, const fs::path& to, std::span<const std::string> names) {
  for (const std::string& name : names) {
    std::error_code error;
    fs::copy_file(from / name, to / name, error);
    if (error) {
      return {Code::kInvalidArgument,
              fmt::format("{}: {}", (from / name).string(), error.message())};
    }
  }
  return {};
}

}  // namespace

Status quantize_checkpoint(const std::string& from, const std::string& to,
                           std::span<const QuantRule> rules, const QuantizeOptions& options,
                           ThreadPool& threads) {
  std::error_code error;
  if (fs::equivalent(from, to, error))
    return {Code::kInvalidArgument, to + ": must be another folder than the model's"};
  VLR_ASSIGN_OR_RETURN(const ModelFolder files,
                       ModelFolder::open(from, ModelFolder::Weights::kNeeded));
  const Checkpoint& checkpoint = *files.checkpoint;
  const std::string config_path = (fs::path(from) / "config.json").string();
  VLR_ASSIGN_OR_RETURN(ordered_json config, read_config_json(config_path));
  VLR_ASSIGN_OR_RETURN(const ShardPlan plan,
                       plan_shards(checkpoint.tensors(), rules, options.max_shard_bytes));
  VLR_RETURN_IF_ERROR(check_opens(files.config, checkpoint.tensors(), rules));
  VLR_ASSIGN_OR_RETURN(const std::vector<std::string> others, other_files(from));
  VLR_ASSIGN_OR_RETURN(FolderWriter folder,
                       FolderWriter::begin(to, {options.force, is_quantized_by_vlr, others}));
  ShardWriter writer(checkpoint, folder.path(), options, threads);
  VLR_RETURN_IF_ERROR(writer.write(plan));
  VLR_RETURN_IF_ERROR(checkpoint.check_unchanged());
  VLR_RETURN_IF_ERROR(copy_files(from, folder.path(), others));
  const auto write_config = [&](std::span<const float> probe) {
    config["quantization_config"] = quantization_config(rules, plan.formats, plan.dense_modules,
                                                        writer.dense_checksums(), probe);
    return write_text_file((folder.path() / "config.json").string(), config.dump(2) + "\n");
  };
  VLR_RETURN_IF_ERROR(write_config({}));
  if (options.probe) {
    VLR_ASSIGN_OR_RETURN(const std::vector<float> probe, options.probe(folder.path().string()));
    VLR_RETURN_IF_ERROR(write_config(probe));
  }
  return folder.commit();
}

Options decoding_options(Options options, std::span<const QuantRule> rules) {
  options.quant.clear();
  options.quant_rules.clear();
  for (const QuantRule& rule : rules) {
    const QuantMode mode =
        rule.mode == QuantMode::kNone ? QuantMode::kNone : decoding_mode(stored_format(rule.mode));
    options.quant_rules.push_back(fmt::format("{}={}", rule.pattern, quant_mode_name(mode)));
  }
  options.exact = true;
  options.self_check = false;
  return options;
}

Result<std::vector<float>> probe_log_odds(Reranker& reranker) {
  std::vector<float> out;
  const std::vector<Request> requests = pair_score().probe();
  VLR_ASSIGN_OR_RETURN(const std::vector<Response> responses, reranker.score(requests));
  for (const Response& response : responses) {
    for (const DocumentResult& r : response.results) {
      if (!r.scored()) return {Code::kDataLoss, "relevance probe: " + r.message};
      out.push_back(r.log_odds);
    }
  }
  return out;
}

}  // namespace vlr
