#include "engine/weights/make_checkpoint.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "engine/runtime/safetensors.h"
#include "engine/weights/folder_writer.h"
#include "model/json.h"
#include "model/synthetic.h"
#include "model/weight_plan.h"
#include "tokenizer/tokenizer.h"

namespace vlr {
namespace fs = std::filesystem;
namespace {

/// Cuts the list as transformers' save_pretrained does: a shard ends before the tensor that would
/// make it too large, and a tensor that is too large alone is written before the shard it
/// interrupts.
std::vector<std::vector<NamedShape>> cut_into_shards(std::vector<NamedShape> tensors,
                                                     int64_t max_bytes) {
  std::vector<std::vector<NamedShape>> shards;
  std::vector<NamedShape> shard;
  int64_t shard_bytes = 0;
  for (NamedShape& t : tensors) {
    const int64_t bytes = t.bytes();
    if (bytes > max_bytes) {
      shards.push_back({std::move(t)});
      continue;
    }
    if (shard_bytes + bytes > max_bytes) {
      shards.push_back(std::exchange(shard, {}));
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    shard.push_back(std::move(t));
  }
  if (!shard.empty()) shards.push_back(std::move(shard));
  return shards;
}

Status write_index(const std::string& path, const std::map<std::string, std::string>& weight_map,
                   int64_t parameters, int64_t bytes) {
  const nlohmann::json index = {
      {"metadata", {{"total_parameters", parameters}, {"total_size", bytes}}},
      {"weight_map", weight_map}};
  return write_text_file(path, index.dump(2) + "\n");
}

}  // namespace

Status make_checkpoint(std::string_view preset, const std::string& folder,
                       const SyntheticOptions& options) {
  VLR_ASSIGN_OR_RETURN(const ModelConfig config, synthetic_config(preset));
  VLR_ASSIGN_OR_RETURN(const int64_t shard_bytes, synthetic_shard_bytes(preset));
  const std::string text = format_config(config);
  const auto same = [&](std::string_view there) { return there == text; };
  std::vector<std::string> names;
  if (!options.tokenizer_json.empty()) names.emplace_back("tokenizer.json");
  VLR_ASSIGN_OR_RETURN(FolderWriter writer,
                       FolderWriter::begin(folder, {options.force, same, std::move(names)}));
  if (!options.tokenizer_json.empty()) {
    if (const auto tokenizer = Tokenizer::open(options.tokenizer_json); !tokenizer)
      return tokenizer.error();
    std::error_code error;
    fs::copy_file(options.tokenizer_json, writer.path() / "tokenizer.json", error);
    if (error)
      return {Code::kNotFound, fmt::format("{}: {}", options.tokenizer_json, error.message())};
  }
  VLR_RETURN_IF_ERROR(write_text_file((writer.path() / "config.json").string(), text));

  std::vector<NamedShape> tensors = checkpoint_tensors(config, DType::kBF16);
  int64_t total = 0, done = 0;
  for (const NamedShape& t : tensors) total += t.bytes();
  const auto fill = [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) -> Status {
    fill_synthetic(t, begin / 2, {reinterpret_cast<uint16_t*>(out.data()), out.size() / 2});
    done += static_cast<int64_t>(out.size());
    if (options.progress) options.progress(done, total);
    return {};
  };
  const int64_t max_shard_bytes =
      options.max_shard_bytes > 0 ? options.max_shard_bytes : shard_bytes;
  const auto shards = cut_into_shards(std::move(tensors), max_shard_bytes);
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_file_name(i, shards.size());
    for (const NamedShape& t : shards[i]) weight_map.emplace(t.name, name);
    VLR_RETURN_IF_ERROR(write_safetensors((writer.path() / name).string(), shards[i], fill));
  }
  if (shards.size() > 1) {
    VLR_RETURN_IF_ERROR(write_index((writer.path() / "model.safetensors.index.json").string(),
                                    weight_map, total / dtype_bytes(DType::kBF16), total));
  }
  return writer.commit();
}

}  // namespace vlr
