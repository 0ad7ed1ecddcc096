// The whole engine against transformers in fp32: 14 requests x two small checkpoints, token ids,
// grids, positions, log-odds of every document, and every intermediate tensor of some.
// tests/golden/README.md says how the expected values were made.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/api/request_json.h"
#include "engine/runtime/safetensors.h"
#include "tests/support/checkpoints.h"
#include "tests/support/crc32.h"

namespace vlr {
namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  EXPECT_TRUE(in.good()) << path;
  return text.str();
}

Request golden_request(const std::string& name) {
  auto parsed = parse_request(read(kGolden / "requests" / (name + ".json")));
  EXPECT_TRUE(parsed) << parsed.error().message();
  parsed->request.media_root = (kGolden / "media").string();
  return parsed->request;
}

const std::string kRequests[] = {"image_big",    "image_query", "image_webp",     "images",
                                 "mixed",        "null_query",  "text_basic",     "text_edge",
                                 "text_long",    "text_many",   "text_truncated", "text_unicode",
                                 "video_frames", "video_query"};

class Golden : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(Golden, Request) {
  const auto& [model, name] = GetParam();
  const testing::TempFolder folder;
  Reranker reranker = open_or_die(make_synthetic(folder, model), {.allow_special = true});
  const Request request = golden_request(name);
  const nlohmann::json expected =
      nlohmann::json::parse(read(kTestData / "golden/expected" / model / (name + ".json")));
  const auto response = reranker.score(request);
  ASSERT_TRUE(response) << response.error().message();
  const auto explained = reranker.explain(request);
  ASSERT_TRUE(explained) << explained.error().message();
  ASSERT_EQ(response->results.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE("document " + std::to_string(i));
    const nlohmann::json& e = expected[i];
    const DocumentResult& r = response->results[i];
    const Explanation& x = (*explained)[i];
    ASSERT_TRUE(r.scored()) << r.message;
    EXPECT_EQ(r.num_tokens, e["num_tokens"]);
    EXPECT_EQ(x.num_tokens_before_truncation, e["num_tokens_before_truncation"]);
    EXPECT_EQ(r.truncated, e["num_tokens"] != e["num_tokens_before_truncation"]);
    EXPECT_EQ(test::crc32(x.token_ids), e["token_ids_crc32"]);
    if (!e["token_ids"].is_null()) {
      EXPECT_EQ(x.token_ids, e["token_ids"].get<std::vector<int32_t>>());
    }
    if (const auto prompt = e["prompt"].get<std::string>(); prompt.find("…") == std::string::npos) {
      EXPECT_EQ(x.prompt, prompt);
    }
    EXPECT_EQ(nlohmann::json(x.image_grids), e["image_grid_thw"]);
    EXPECT_EQ(nlohmann::json(x.video_grids), e["video_grid_thw"]);
    const size_t tokens = x.token_ids.size();
    for (size_t axis = 0; axis < 3; ++axis)
      EXPECT_EQ(x.positions[(axis + 1) * tokens - 1], e["last_position"][axis]);
    EXPECT_NEAR(r.log_odds, e["log_odds_fp32"].get<double>(), 2e-3);
    EXPECT_NEAR(r.score, e["score_fp32"].get<double>(), 5e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Golden,
                         ::testing::Combine(::testing::Values(std::string("a"), std::string("b")),
                                            ::testing::ValuesIn(kRequests)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param);
                         });

/// |a - b| / |b| over all elements.
double relative_l2(std::span<const float> a, std::span<const float> b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

/// {model, request, document} of every NAME.INDEX.safetensors.
const std::tuple<std::string, std::string, int> kTensorFiles[] = {
    {"a", "images", 0}, {"a", "images", 1},     {"a", "images", 2},     {"a", "mixed", 0},
    {"a", "mixed", 1},  {"a", "text_basic", 0}, {"a", "text_basic", 1}, {"b", "images", 1},
    {"b", "mixed", 0},  {"b", "text_basic", 0}, {"b", "text_basic", 1}};

class GoldenTensors : public ::testing::TestWithParam<std::tuple<std::string, std::string, int>> {};

TEST_P(GoldenTensors, Intermediate) {
  const auto& [model, name, document] = GetParam();
  const testing::TempFolder folder;
  std::map<std::string, std::vector<float>>
      seen;  // a value of all runs of its graph, one after the other
  Options options{.allow_special = true};
  options.on_value = [&](std::string_view value, std::span<const int64_t> shape,
                         const float* data) {
    int64_t count = 1;
    for (int64_t d : shape) count *= d;
    auto& values = seen[std::string(value.substr(value.find('/') + 1))];
    values.insert(values.end(), data, data + count);
  };
  const std::string path = make_synthetic(folder, model);
  Reranker reranker = open_or_die(path, options);
  Request request = golden_request(name);
  request.documents = {request.documents[static_cast<size_t>(document)]};
  ASSERT_TRUE(reranker.score(request));
  const auto explained = reranker.explain(request);
  ASSERT_TRUE(explained);
  const auto config = read_config(path + "/config.json");
  ASSERT_TRUE(config);
  const auto layers = config->text_config.num_hidden_layers;

  const auto file = SafetensorsFile::open((kTestData / "golden/expected" / model /
                                           (name + "." + std::to_string(document) + ".safetensors"))
                                              .string());
  ASSERT_TRUE(file) << file.error().message();
  std::map<std::string, std::vector<float>> expected;  // images of a tensor one after the other
  int compared = 0;
  for (const auto& [tensor_name, tensor] : file->tensors()) {
    if (tensor_name == "position_ids") {
      ASSERT_EQ(tensor.numel(), std::ssize((*explained)[0].positions));
      for (size_t i = 0; i < (*explained)[0].positions.size(); ++i) {
        int64_t position;
        std::memcpy(&position, tensor.data + 8 * i, 8);
        ASSERT_EQ((*explained)[0].positions[i], position) << i;
      }
      ++compared;
    }
    if (tensor.dtype != DType::kF32) continue;
    const std::string stem = tensor_name.substr(0, tensor_name.find('.'));
    std::vector<float>& all = expected[stem];
    const size_t begin = all.size();
    all.resize(begin + static_cast<size_t>(tensor.numel()));
    std::memcpy(all.data() + begin, tensor.data, static_cast<size_t>(tensor.bytes()));
  }
  for (auto& [stem, values] : expected) {
    SCOPED_TRACE(stem);
    const auto number = [&](std::string_view prefix) {
      return std::stol(stem.substr(prefix.size()));
    };
    std::string ours;
    if (stem.starts_with("vision_block_"))
      ours = "blocks." + std::to_string(number("vision_block_")) + ".mlp.residual";
    else if (stem == "merger")
      ours = "visual";
    else if (stem.starts_with("deepstack_"))
      ours = "deepstack." + std::to_string(number("deepstack_"));
    else if (stem.starts_with("text_layer_"))
      ours = "layers." + std::to_string(number("text_layer_")) + ".mlp.residual";
    else if (stem == "final_hidden_last")
      ours = "layers." + std::to_string(layers - 1) + ".mlp.residual";
    else
      FAIL() << "an unknown tensor";
    ASSERT_TRUE(seen.contains(ours)) << ours;
    std::vector<float> got = seen[ours];
    if (stem == "final_hidden_last") {
      // The head normalises and multiplies in one op: normalise here.
      const auto checkpoint = Checkpoint::open(path);
      ASSERT_TRUE(checkpoint);
      const StoredTensor* weight = checkpoint->find("model.language_model.norm.weight");
      ASSERT_NE(weight, nullptr);
      double squares = 0;
      for (float v : got) squares += static_cast<double>(v) * v;
      const double scale = 1 / std::sqrt(squares / static_cast<double>(got.size()) +
                                         config->text_config.rms_norm_eps);
      for (size_t i = 0; i < got.size(); ++i) {
        uint16_t bits;
        std::memcpy(&bits, weight->data + 2 * i, 2);
        got[i] = static_cast<float>(got[i] * scale * bf16_to_f32(bits));
      }
    } else if (stem == "text_layer_" + std::to_string(layers - 1)) {
      values.erase(values.begin(), values.end() - std::ssize(got));  // we compute its last row only
    }
    ASSERT_EQ(got.size(), values.size());
    EXPECT_LE(relative_l2(got, values), 1e-4);
    ++compared;
  }
  EXPECT_GE(compared, layers + 2);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTensors, ::testing::ValuesIn(kTensorFiles),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param) + "_" +
                                  std::to_string(std::get<2>(test.param));
                         });

}  // namespace
}  // namespace vlr
