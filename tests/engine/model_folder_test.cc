// Folders of checkpoints: what is not read is refused by name by whoever opens one, writers replace
// whole checkpoints, and damaged quantised files do not score something else.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/api/quantize_checkpoint.h"
#include "engine/placement/prepared_model.h"
#include "kernels/core/load.h"
#include "kernels/quant/eight_bit.h"
#include "tests/support/checkpoints.h"
#include "tests/support/in_child.h"
#include "tests/support/tensor_map.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HeldTensor;
using testing::read_file;
using testing::TempFolder;
using testing::TensorMap;
using testing::write_file;

Options on_cpu() {
  Options o;
  o.device = "cpu";
  o.num_threads = 2;
  return o;
}

/// Why a folder does not open; planning it has to say the same.
std::string refusal(const std::string& path) {
  const auto opened = Reranker::open(path, on_cpu());
  const auto planned = Reranker::plan(path, on_cpu(), {});
  const std::string why = opened ? "opened" : opened.error().message();
  EXPECT_EQ(why, planned ? "opened" : planned.error().message());
  return why;
}

/// The demo model in a folder of its own, to be changed.
class Folder : public ::testing::Test {
 protected:
  Folder() {
    fs::create_directory(path_);
    for (const auto& entry : fs::directory_iterator(demo_model())) fs::copy(entry.path(), path_);
  }
  void change_config(const std::function<void(json&)>& change) {
    json config = json::parse(read_file(demo_model() + "/config.json"));
    change(config);
    write_file(path_ + "/config.json", config.dump());
  }
  /// All tensors, as one file.
  TensorMap tensors() const {
    TensorMap out;
    for (const auto& entry : fs::directory_iterator(demo_model())) {
      if (entry.path().extension() != ".safetensors") continue;
      for (auto& [name, t] : TensorMap(entry.path().string())) out.add(name, std::move(t));
    }
    return out;
  }
  void write(const TensorMap& tensors) {
    for (const auto& entry : fs::directory_iterator(path_)) {
      if (entry.path().filename().string().starts_with("model")) fs::remove(entry.path());
    }
    tensors.write(path_ + "/model.safetensors");
  }
  std::string says_of_config(const std::string& quantization) {
    change_config([&](json& c) { c["quantization_config"] = json::parse(quantization); });
    return refusal(path_);
  }

  TempFolder folder_;
  const std::string path_ = folder_ / "m";
};

TEST_F(Folder, QuantisedByOtherMethodsIsRefusedByName) {
  EXPECT_EQ(refusal(path_), "opened");
  for (const auto& [config, name] : std::vector<std::pair<const char*, const char*>>{
           {R"({"quant_method": "awq", "bits": 4})", "quant_method 'awq' is not read"},
           {R"({"quant_method": "gptq", "bits": 4})", "quant_method 'gptq' is not read"},
           {R"({"quant_method": "modelopt"})", "quant_method 'modelopt' is not read"},
           {R"({"quant_method": "fp8", "weight_block_size": [128, 128]})",
            "quant_method 'fp8' with scales of blocks [128,128] is not read"},
           {R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})",
            "compressed-tensors 'pack-quantized' is not read"},
           {R"({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"})",
            "compressed-tensors 'nvfp4-pack-quantized' is not read"},
           {R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups":
               {"g": {"weights": {"num_bits": 8, "type": "float", "strategy": "block"}}}})",
            "scales by 'block'"},
           {R"({"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups":
               {"g": {"weights": {"num_bits": 8, "type": "int", "symmetric": false}}}})",
            "codes with a zero point"}}) {
    EXPECT_THAT(says_of_config(config), AllOf(HasSubstr("config.json"), HasSubstr(name)));
  }
  change_config([](json& c) { c["quantization"] = {{"group_size", 64}, {"bits", 4}}; });
  EXPECT_THAT(refusal(path_), HasSubstr("an MLX conversion"));
}

TEST_F(Folder, FilesThatAreSomethingElse) {
  EXPECT_THAT(refusal("qwen/some-reranker"), HasSubstr("has to be downloaded first"));
  write_file(folder_ / "x.gguf", "GGUF\3");
  EXPECT_THAT(refusal(folder_ / "x.gguf"), HasSubstr("a GGUF file, which is not read"));
  write_file(folder_ / "x.txt", "text");
  EXPECT_THAT(refusal(folder_ / "x.txt"), HasSubstr("not a folder"));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("x.gguf and no config.json"));

  const char* pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors.index.json"}) {
    const std::string file = path_ + "/" + name, good = read_file(demo_model() + "/" + name);
    write_file(file, pointer);
    EXPECT_THAT(refusal(path_), AllOf(HasSubstr(name), HasSubstr("a Git LFS pointer")));
    fs::remove(file);
    ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
    EXPECT_THAT(refusal(path_), AllOf(HasSubstr(name), HasSubstr("not a regular file")));
    fs::remove(file);
    fs::create_symlink("/dev/zero", file);
    EXPECT_THAT(refusal(path_), AllOf(HasSubstr(name), HasSubstr("not a regular file")));
    fs::remove(file);
    write_file(file, good);
  }
  ASSERT_EQ(refusal(path_), "opened");
  const json index = json::parse(read_file(path_ + "/model.safetensors.index.json"));
  const std::string shard = path_ + "/" + index["weight_map"].begin()->get<std::string>();
  fs::remove(shard);
  ASSERT_EQ(::mkfifo(shard.c_str(), 0600), 0);
  EXPECT_THAT(refusal(path_), HasSubstr("not a regular file"));
  fs::remove(shard);
  write_file(shard, pointer);
  EXPECT_THAT(refusal(path_), HasSubstr("a Git LFS pointer"));

  for (const auto& entry : fs::directory_iterator(path_)) {
    if (entry.path().filename().string().starts_with("model")) fs::remove(entry.path());
  }
  write_file(path_ + "/pytorch_model.bin", "x");
  EXPECT_THAT(refusal(path_), HasSubstr("pytorch_model.bin is not read; vlr takes a folder"));
}

TEST_F(Folder, WhatWouldChangeScoresIsAnError) {
  write_file(path_ + "/adapter_config.json", "{}");
  EXPECT_THAT(refusal(path_), HasSubstr("adapter_config.json: an adapter, which is not applied"));
  fs::remove(path_ + "/adapter_config.json");

  TensorMap good = tensors();
  const HeldTensor& norm = good["model.language_model.norm.weight"];
  const auto with = [&](const char* name) {
    TensorMap more = good;
    more.add(name, norm);
    write(more);
    return refusal(path_);
  };
  const std::string q = "model.language_model.layers.0.self_attn.q_proj.";
  EXPECT_THAT(with((q + "lora_A.default.weight").c_str()),
              AllOf(HasSubstr(q + "lora_A"), HasSubstr("an adapter's")));
  EXPECT_THAT(with((q + "bias").c_str()),
              HasSubstr(q + "bias: is not read, and the weight beside it is"));
  EXPECT_THAT(with("model.language_model.layers.6.input_layernorm.weight"),
              HasSubstr("layers.6.input_layernorm.weight: config.json has 6 of them, as "
                        "num_hidden_layers"));
  EXPECT_THAT(with("score.bias"), HasSubstr("score.bias: a bias of the head is not read"));
  EXPECT_THAT(with("model.classifier.bias"), HasSubstr("classifier.bias: a bias of the head"));
  EXPECT_EQ(with("model.language_model.rotary_emb.inv_freq"), "opened");  // harmless
  write(good);
  change_config([](json& c) { c["text_config"]["num_hidden_layers"] = 3; });
  EXPECT_THAT(refusal(path_), HasSubstr("config.json has 3 of them, as num_hidden_layers"));
}

/// Every linear layer of the decoder as compressed-tensors has it.
TEST_F(Folder, CompressedTensorsOpensAsItSays) {
  TensorMap out = tensors();
  const TensorMap source = out;
  for (const auto& [name, t] : source.view()) {
    if (!name.ends_with("_proj.weight")) continue;
    const ConstTensor dense(t.data, t.dtype, {t.shape[0], t.shape[1]});
    HeldTensor codes{{DType::kF8E4M3, t.shape}, {}}, scale{{DType::kBF16, {t.shape[0], 1}}, {}};
    codes.data.resize(static_cast<size_t>(codes.bytes()));
    scale.data.resize(static_cast<size_t>(scale.bytes()));
    const Tensor scales(scale.data.data(), DType::kBF16, {t.shape[0]});
    for (int64_t r = 0; r < t.shape[0]; ++r) {
      float largest = 0;
      for (int64_t k = 0; k < t.shape[1]; ++k)
        largest = std::max(largest, std::fabs(load_f32(dense, r * t.shape[1] + k)));
      store_f32(scales, r, largest / 448);
      for (int64_t k = 0; k < t.shape[1]; ++k) {
        const int64_t i = r * t.shape[1] + k;
        codes.set(static_cast<size_t>(i), f32_to_e4m3(load_f32(dense, i) / load_f32(scales, r)));
      }
    }
    out.add(name, codes);
    const std::string module = name.substr(0, name.size() - 7);
    out.add(module + ".weight_scale", scale);
    HeldTensor input{{DType::kBF16, {1}}, {}};
    input.data.resize(2);
    out.add(module + ".input_scale", input);
  }
  write(out);
  const auto opens_as = [&](const char* activations) {
    change_config([&](json& c) {
      c["quantization_config"] = json::parse(
          R"({"quant_method": "compressed-tensors", "format": "float-quantized",
              "ignore": ["lm_head", "re:.*visual.*"], "config_groups": {"group_0": {"targets":
              ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel",
              "symmetric": true}, "input_activations": )" +
          std::string(activations) + "}}}");
    });
    EXPECT_EQ(refusal(path_), "opened");
    return std::string(open_or_die(path_, on_cpu()).quant());
  };
  EXPECT_EQ(opens_as("null"), "fp8-weight");
  EXPECT_EQ(opens_as(R"({"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true})"),
            "fp8");
  Request request;
  request.query.texts = {"a shining star"};
  request.documents = {text_document("A planetarium that shows stars."),
                       image_document(kSource / "demo/documents/star.png")};
  Reranker reranker = open_or_die(path_, on_cpu());
  const auto response = reranker.score(request);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_NEAR(response->results[0].log_odds, -2.9104321, 2e-3);
  EXPECT_NEAR(response->results[1].log_odds, 7.18217182, 2e-3);
}

const std::vector<QuantRule> kNf4Rules = {{"text", QuantMode::kNf4}};

TEST(QuantizeCheckpoint, DoesNotReplaceWhatItDidNotMake) {
  const TempFolder folder;
  ThreadPool threads(2);
  const std::string other = make_synthetic(folder, "a");
  const std::string before = read_file(other + "/config.json");
  EXPECT_THAT(quantize_checkpoint(demo_model(), other, kNf4Rules, {}, threads).message(),
              HasSubstr("has another checkpoint (config.json)"));
  EXPECT_EQ(read_file(other + "/config.json"), before);
  QuantizeOptions force;
  force.force = true;
  EXPECT_EQ(quantize_checkpoint(demo_model(), other, kNf4Rules, force, threads).message(), "");
  EXPECT_EQ(quantize_checkpoint(demo_model(), other, kNf4Rules, {}, threads).message(), "");
  EXPECT_EQ(open_or_die(other).quant(), "nf4");
}

/// Whether a checkpoint is on the way into a folder, or was when its writer died.
bool is_being_written(const std::string& folder) {
  std::error_code error;  // what is listed may be gone
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string().starts_with(".vlr-")) return true;
  return false;
}

/// Has children write a checkpoint into a folder and kills them at any time from their first file to
/// the end, until it has met `wanted` of them in it, or many more have got away. How many it has.
int kill_writers(const std::string& folder, int wanted, const std::function<Status()>& write,
                 const std::function<void()>& check) {
  using Clock = std::chrono::steady_clock;
  std::mt19937 rng(1);
  std::chrono::microseconds longest{1000};  // from the first file to the end
  int met = 0;
  for (int i = 0; i < 4 * wanted && met < wanted && !::testing::Test::HasFailure(); ++i) {
    const ::pid_t child = ::fork();
    if (child == 0) {
      const Status status = write();
      if (!status.ok()) fmt::print(stderr, "{}\n", status.message());
      ::_exit(status.ok() ? 0 : 1);
    }
    EXPECT_GE(child, 0);
    if (child < 0) break;
    int status = 0;
    const auto has_ended = [&] { return ::waitpid(child, &status, WNOHANG) == child; };
    // What the one before it has left is not its own, and goes first.
    bool ended = false;
    while (!ended && !is_being_written(folder)) {
      ::usleep(50);
      ended = has_ended();
    }
    const auto start = Clock::now();
    const auto end = start + longest * static_cast<int64_t>(rng() % 1000) / 1000;
    const bool runs_to_end = i % 16 == 0;
    while (!ended && (runs_to_end || Clock::now() < end)) {
      ::usleep(50);
      ended = has_ended();
    }
    if (ended) {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      longest = std::max(
          longest, std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start));
    } else {
      ::kill(child, SIGKILL);
      EXPECT_EQ(::waitpid(child, &status, 0), child);
    }
    met += !ended && is_being_written(folder);
    check();
  }
  return met;
}

/// Killed at any time, it leaves what was there, nothing that opens, or the new checkpoint; and the
/// next one needs no --force.
TEST(QuantizeCheckpoint, KilledItLeavesNoFolderThatOpensWrongly) {
  const TempFolder folder;
  const std::string out = folder / "out";
  const std::vector<QuantRule> int8_rules = {{"text", QuantMode::kInt8}};
  std::string before = "int8";
  const auto write = [&] {
    ThreadPool own(1);
    return quantize_checkpoint(demo_model(), out, before == "int8" ? kNf4Rules : int8_rules, {},
                               own);
  };
  ASSERT_TRUE(write().ok());
  before = "nf4";
  int closed = 0, renewed = 0;
  // A sanitizer's writer takes fifteen times as long, and is killed in the same places.
  const int wanted = test::kSanitized ? 12 : 104;
  const int met = kill_writers(out, wanted, write, [&] {
    const auto opened = Reranker::open(out, on_cpu());
    if (!opened) {
      EXPECT_FALSE(fs::exists(out + "/config.json")) << opened.error().message();
      EXPECT_THAT(opened.error().message(), HasSubstr("or its writer was killed"));
      ++closed;
      return;
    }
    EXPECT_TRUE(opened->quant() == "nf4" || opened->quant() == "int8") << opened->quant();
    renewed += opened->quant() != before;
    before = opened->quant();
  });
  fmt::print("{} killed while they wrote; {} left no config.json, {} had ended\n", met, closed,
             renewed);
  EXPECT_GE(met, wanted * 100 / 104);
  EXPECT_TRUE(write().ok());
  EXPECT_EQ(open_or_die(out).quant(), before == "int8" ? "nf4" : "int8");
}

TEST(MakeCheckpoint, TakesOnlyATokenizer) {
  const TempFolder folder;
  SyntheticOptions options;
  options.tokenizer_json = demo_model() + "/config.json";
  EXPECT_THAT(make_checkpoint("a", folder / "a", options).message(),
              HasSubstr("config.json: normalizer.type must be \"NFC\""));
  options.tokenizer_json = folder / "none.json";
  EXPECT_THAT(make_checkpoint("a", folder / "a", options).message(), HasSubstr("none.json: "));
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST(MakeCheckpoint, KilledItLeavesNoFolderThatOpensWrongly) {
  const TempFolder folder;
  const std::string out = make_synthetic(folder, "a");
  SyntheticOptions options;
  options.tokenizer_json = demo_model() + "/tokenizer.json";
  const auto write = [&] { return make_checkpoint("a", out, options); };
  const int met = kill_writers(out, 24, write, [&] {
    const auto opened = ModelFolder::open(out, ModelFolder::Weights::kNeeded);
    if (opened) return;
    EXPECT_FALSE(fs::exists(out + "/config.json")) << opened.error().message();
    EXPECT_THAT(opened.error().message(), HasSubstr("or its writer was killed"));
  });
  EXPECT_GE(met, 20);
  EXPECT_TRUE(write().ok());
  EXPECT_EQ(refusal(out), "opened");
}

/// One of many ways to damage a file.
std::string damaged(std::string bytes, std::mt19937& rng) {
  const auto at = [&] { return rng() % bytes.size(); };
  switch (rng() % 6) {
    case 0:  // a bit
      bytes[at()] ^= static_cast<char>(1 << rng() % 8);
      return bytes;
    case 1:  // in the header, more likely
      bytes[rng() % 4096] ^= static_cast<char>(1 << rng() % 8);
      return bytes;
    case 2:
      return bytes.substr(0, at());
    case 3:  // noise
      for (size_t i = at(), n = 0; n < 64 && i < bytes.size(); ++n, ++i)
        bytes[i] = static_cast<char>(rng());
      return bytes;
    case 4: {  // two pieces exchanged
      const size_t a = at(), b = at(),
                   n = std::min(
                       {size_t{256}, bytes.size() - std::max(a, b), a < b ? b - a : a - b});
      std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(a),
                       bytes.begin() + static_cast<std::ptrdiff_t>(a + n),
                       bytes.begin() + static_cast<std::ptrdiff_t>(b));
      return bytes;
    }
    default:  // zeros
      for (size_t i = at(), n = 0; n < 512 && i < bytes.size(); ++n, ++i) bytes[i] = 0;
      return bytes;
  }
}

/// Whatever happens to its weights' file, a model scores as before or does not open.
TEST(DamagedFiles, DoNotScoreSomethingElse) {
  const TempFolder folder;
  const std::string model = make_synthetic(folder, "a");
  ThreadPool threads(2);
  Request request;
  request.query.texts = {"a star"};
  request.documents = {text_document("A planetarium."), text_document("the moon")};
  std::mt19937 rng(324);
  for (const QuantMode mode : {QuantMode::kNf4, QuantMode::kInt8, QuantMode::kFp8}) {
    const std::string path = folder / quant_mode_name(mode), file = path + "/model.safetensors";
    const std::vector<QuantRule> rules = {{"text", mode}};
    QuantizeOptions how;
    how.probe = [&](const std::string& written) -> Result<std::vector<float>> {
      Reranker decoded = open_or_die(written, decoding_options(on_cpu(), rules));
      return probe_log_odds(decoded);
    };
    ASSERT_TRUE(quantize_checkpoint(model, path, rules, how, threads).ok());
    const std::string good = read_file(file);
    const auto config = json::parse(read_file(path + "/config.json"));
    EXPECT_GT(config["quantization_config"]["vlr"]["dense_checksums"].size(), 10u);
    const auto bits = [&] {
      auto reranker = Reranker::open(path, on_cpu());
      return reranker ? score_bits(*reranker, request) : std::vector<uint32_t>{};
    };
    const std::vector<uint32_t> want = bits();
    ASSERT_FALSE(want.empty());
    int refused = 0;
    for (int i = 0; i < 108; ++i) {
      write_file(file, damaged(good, rng));
      const std::vector<uint32_t> got = bits();
      EXPECT_TRUE(got.empty() || got == want) << quant_mode_name(mode) << " " << i;
      refused += got.empty();
    }
    EXPECT_GT(refused, 90);
  }
}

}  // namespace
}  // namespace vlr
