#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string golden(const std::string& preset) {
  return testing::read_file(VLR_SOURCE_DIR "/tests/golden/models/" + preset + "/config.json");
}

/// Preset a's configuration (4.57 layout) after a JSON merge patch (RFC 7396: null removes a key).
std::string patched(const std::string& patch) {
  json config = json::parse(golden("a"));
  config.merge_patch(json::parse(patch));
  return config.dump();
}

void expect_refused(const std::string& patch, std::string_view why,
                    Code code = Code::kInvalidArgument) {
  const auto config = parse_config(patched(patch));
  ASSERT_FALSE(config) << patch;
  EXPECT_EQ(config.error().code(), code) << patch;
  EXPECT_THAT(config.error().message(), HasSubstr(why)) << patch;
  EXPECT_THAT(config.error().message(), HasSubstr("config.json: ")) << patch;
}

ModelConfig expect_parses(const std::string& patch) {
  auto config = parse_config(patched(patch));
  EXPECT_TRUE(config) << patch << ": " << config.error().message();
  return config ? *config : ModelConfig{};
}

TEST(Config, ReadsTheOlderLayout) {
  const auto config = parse_config(golden("a"));
  ASSERT_TRUE(config) << config.error().message();
  const TextConfig& t = config->text_config;
  EXPECT_EQ(t.vocab_size, 16128);
  EXPECT_EQ(t.hidden_size, 128);
  EXPECT_EQ(t.intermediate_size, 384);
  EXPECT_EQ(t.num_hidden_layers, 5);
  EXPECT_EQ(t.num_attention_heads, 4);
  EXPECT_EQ(t.num_key_value_heads, 1);
  EXPECT_EQ(t.head_dim, 128);
  EXPECT_EQ(t.max_position_embeddings, 262144);
  EXPECT_EQ(t.rms_norm_eps, 1e-6);
  EXPECT_EQ(t.rope_theta, 5e6);
  EXPECT_EQ(t.mrope_section, (std::array<int64_t, 3>{24, 20, 20}));
  ASSERT_TRUE(config->vision_config);
  const VisionConfig& v = *config->vision_config;
  EXPECT_EQ(v.depth, 5);
  EXPECT_EQ(v.hidden_size, 144);
  EXPECT_EQ(v.intermediate_size, 336);
  EXPECT_EQ(v.num_heads, 2);
  EXPECT_EQ(v.head_dim(), 72);
  EXPECT_EQ(v.patch_dim(), 1536);
  EXPECT_EQ(v.merged_size(), 576);
  EXPECT_EQ(v.out_hidden_size, 128);
  EXPECT_EQ(v.num_position_embeddings, 2304);
  EXPECT_EQ(v.deepstack_visual_indexes, (std::vector<int64_t>{0, 2, 3}));
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_EQ(config->dtype, DType::kBF16);
  EXPECT_EQ(config->image_token_id, 16012);
  EXPECT_EQ(config->video_token_id, 16013);
  EXPECT_EQ(config->vision_start_token_id, 16009);
  EXPECT_EQ(config->vision_end_token_id, 16010);
}

TEST(Config, ReadsTheNewerLayout) {
  const auto config = parse_config(golden("b"));
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->text_config.rope_theta, 5e6);
  EXPECT_EQ(config->text_config.hidden_size, 192);
  EXPECT_EQ(config->vision_config->head_dim(), 64);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->dtype, DType::kBF16);
}

TEST(Config, BothLayoutsMeanTheSame) {
  const std::string newer =
      R"({"torch_dtype": null, "text_config": {"dtype": "bfloat16", "rope_theta": null,
      "rope_scaling": null, "rope_parameters": {"rope_theta": 5000000, "rope_type": "default",
      "mrope_section": [24, 20, 20], "mrope_interleaved": true}}})";
  EXPECT_EQ(expect_parses(newer), expect_parses("{}"));
}

TEST(Config, RopeVariants) {
  EXPECT_EQ(expect_parses(R"({"text_config": {"rope_scaling": null}})"), expect_parses("{}"));
  EXPECT_EQ(
      expect_parses(R"({"text_config": {"rope_scaling": {"rope_type": null, "type": "default"}}})"),
      expect_parses("{}"));
  // rope_parameters is the newer key and wins over leftovers of the older ones.
  const ModelConfig c = expect_parses(
      R"({"text_config": {"rope_parameters": {"rope_theta": 7, "mrope_section": [64, 0, 0]}}})");
  EXPECT_EQ(c.text_config.rope_theta, 7);
  EXPECT_EQ(c.text_config.mrope_section[0], 64);
  expect_refused(R"({"text_config": {"rope_theta": null}})", "text_config.rope_theta is missing");
  expect_refused(R"({"text_config": {"rope_theta": 0}})",
                 "text_config.rope_theta must be a number from 1");
  expect_refused(R"({"text_config": {"rope_theta": "5e6"}})",
                 "text_config.rope_theta must be a number");
  expect_refused(R"({"text_config": {"rope_scaling": []}})",
                 "text_config.rope_scaling must be an object, got an array");
  expect_refused(R"({"text_config": {"rope_scaling": {"rope_type": "yarn"}}})",
                 "text_config.rope_scaling.rope_type: only 'default' is supported, got 'yarn'",
                 Code::kUnimplemented);
  expect_refused(R"({"text_config": {"rope_scaling": {"mrope_interleaved": false}}})",
                 "mrope_interleaved: only true", Code::kUnimplemented);
  expect_refused(R"({"text_config": {"rope_scaling": {"mrope_section": [24, 20, 21]}}})",
                 "mrope_section must add up to head_dim / 2 = 64, got 65");
  expect_refused(R"({"text_config": {"rope_scaling": {"mrope_section": [32, 32]}}})",
                 "mrope_section must have 3 numbers");
  expect_refused(R"({"text_config": {"rope_scaling": {"mrope_section": [32, 32, 0, 0]}}})",
                 "mrope_section must be an array of at most 3");
  expect_refused(R"({"text_config": {"rope_scaling": {"mrope_section": [24, -20, 60]}}})",
                 "mrope_section must be an array");
}

TEST(Config, TyingIsReadFromTheTopFirst) {
  EXPECT_TRUE(expect_parses(R"({"tie_word_embeddings": true})").tie_word_embeddings);
  EXPECT_TRUE(expect_parses(
                  R"({"tie_word_embeddings": null, "text_config": {"tie_word_embeddings": true}})")
                  .tie_word_embeddings);
  EXPECT_FALSE(
      expect_parses(
          R"({"tie_word_embeddings": false, "text_config": {"tie_word_embeddings": true}})")
          .tie_word_embeddings);
  EXPECT_FALSE(expect_parses(
                   R"({"tie_word_embeddings": null, "text_config": {"tie_word_embeddings": null}})")
                   .tie_word_embeddings);
  expect_refused(R"({"tie_word_embeddings": 1})",
                 "tie_word_embeddings must be true or false, got '1'");
}

TEST(Config, Dtypes) {
  EXPECT_EQ(expect_parses(R"({"torch_dtype": "float16"})").dtype, DType::kF16);
  EXPECT_EQ(expect_parses(R"({"torch_dtype": null, "dtype": "float32"})").dtype, DType::kF32);
  EXPECT_EQ(
      expect_parses(R"({"torch_dtype": null, "text_config": {"torch_dtype": "bfloat16"}})").dtype,
      DType::kBF16);
  EXPECT_EQ(expect_parses(R"({"torch_dtype": null})").dtype, std::nullopt);
  expect_refused(R"({"torch_dtype": "int4"})", "got 'int4'", Code::kUnimplemented);
}

TEST(Config, TextOnly) {
  json flat = json::parse(golden("a"))["text_config"];
  const auto config = parse_config(flat.dump());
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_FALSE(config->vision_config);
  EXPECT_EQ(config->text_config, parse_config(golden("a"))->text_config);
  flat["hidden_size"] = 0;
  EXPECT_THAT(parse_config(flat.dump()).error().message(),
              HasSubstr("config.json: hidden_size must be"));
}

TEST(Config, HeadDimIsNeverDerived) {
  expect_refused(R"({"text_config": {"head_dim": null}})", "text_config.head_dim is missing");
  // 4 heads of 128 in a hidden size of 160: the sizes need not agree.
  EXPECT_EQ(
      expect_parses(
          R"({"text_config": {"hidden_size": 160}, "vision_config": {"out_hidden_size": 160}})")
          .text_config.head_dim,
      128);
}

TEST(Config, OtherModels) {
  expect_refused(R"({"model_type": "qwen3"})",
                 "'qwen3' (a text-only Qwen3-Reranker) is not supported yet", Code::kUnimplemented);
  expect_refused(R"({"model_type": "llama"})", "must be 'qwen3_vl' or 'qwen3_vl_text', got 'llama'",
                 Code::kUnimplemented);
  expect_refused(R"({"model_type": "qwen3_vl_moe"})", "got 'qwen3_vl_moe'", Code::kUnimplemented);
  expect_refused(R"({"model_type": null})", "got ''", Code::kUnimplemented);
  expect_refused(R"({"model_type": 3})", "model_type must be a string, got '3'");
}

TEST(Config, TextLimits) {
  const auto text = [](const std::string& fields) { return "{\"text_config\": {" + fields + "}}"; };
  for (const std::string key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim"}) {
    expect_refused(text("\"" + key + "\": null"), "text_config." + key + " is missing");
    for (const std::string value : {"0", "-1", "1.5", "\"8\"", "true", "{}", "9223372036854775807",
                                    "18446744073709551615", "1e300"}) {
      expect_refused(text("\"" + key + "\": " + value),
                     "text_config." + key + " must be an integer from ");
    }
  }
  expect_refused(text(R"("num_attention_heads": 4, "num_key_value_heads": 3)"),
                 "num_attention_heads must be a multiple of num_key_value_heads: 4 and 3");
  expect_refused(text(R"("rms_norm_eps": 0)"), "text_config.rms_norm_eps must be a number");
  expect_refused(text(R"("hidden_act": "relu")"),
                 "hidden_act: only 'silu' is supported, got 'relu'", Code::kUnimplemented);
  expect_refused(text(R"("attention_bias": true)"), "attention_bias: only false is supported",
                 Code::kUnimplemented);
  expect_refused(text(R"("head_dim": 127)"), "mrope_section must add up");
  expect_refused(R"({"text_config": 3})", "text_config must be an object, got '3'");
}

TEST(Config, VisionLimits) {
  const auto vision = [](const std::string& fields) {
    return "{\"vision_config\": {" + fields + "}}";
  };
  for (const std::string key : {"depth", "hidden_size", "intermediate_size", "num_heads",
                                "out_hidden_size", "num_position_embeddings"}) {
    expect_refused(vision("\"" + key + "\": null"), "vision_config." + key + " is missing");
    expect_refused(vision("\"" + key + "\": 0"),
                   "vision_config." + key + " must be an integer from 1 to");
  }
  for (const std::string key :
       {"patch_size", "temporal_patch_size", "spatial_merge_size", "in_channels"}) {
    expect_refused(vision("\"" + key + "\": 14"), key + ": only ", Code::kUnimplemented);
  }
  expect_refused(vision(R"("hidden_act": "gelu")"),
                 "only 'gelu_pytorch_tanh' is supported, got 'gelu'", Code::kUnimplemented);
  expect_refused(vision(R"("num_heads": 5)"),
                 "vision_config.hidden_size must be a multiple of num_heads: 144 and 5");
  expect_refused(vision(R"("num_heads": 8)"), "must be a multiple of four: 18 and 4");
  expect_refused(vision(R"("out_hidden_size": 64)"),
                 "out_hidden_size must be text_config.hidden_size = 128, got 64");
  expect_refused(vision(R"("num_position_embeddings": 2305)"), "must be a square number, got 2305");
  expect_refused(vision(R"("deepstack_visual_indexes": [0, 5])"),
                 "less than depth = 5, got 5 after 0");
  expect_refused(vision(R"("deepstack_visual_indexes": [2, 1])"), "must ascend");
  expect_refused(vision(R"("deepstack_visual_indexes": [1, 1])"), "must ascend");
  expect_refused(vision(R"("deepstack_visual_indexes": [-1])"), "must be an array of");
  expect_refused(vision(R"("deepstack_visual_indexes": 3)"), "must be an array of");
  expect_refused(R"({"text_config": {"num_hidden_layers": 2}})",
                 "has 3 entries for 2 decoder layers");
  expect_refused(R"({"vision_config": "none"})", "vision_config must be an object");
}

TEST(Config, TokenIdsAreInTheVocabulary) {
  expect_refused(R"({"image_token_id": 16128})",
                 "image_token_id must be an integer from 0 to 16127, got '16128'");
  expect_refused(R"({"video_token_id": -1})", "video_token_id must be an integer from 0");
  // Upstream's default would lie outside this vocabulary.
  expect_refused(R"({"vision_end_token_id": null})", "vision_end_token_id is missing");
  EXPECT_EQ(expect_parses(R"({"image_token_id": null, "text_config": {"vocab_size": 151936}})")
                .image_token_id,
            151655);
}

TEST(Config, HostileText) {
  const auto refused = [](const std::string& text, std::string_view why) {
    const auto config = parse_config(text);
    ASSERT_FALSE(config);
    EXPECT_EQ(config.error().code(), Code::kDataLoss);
    EXPECT_THAT(config.error().message(), HasSubstr(why));
    EXPECT_LT(config.error().message().size(), 400u);
  };
  refused("", "not JSON");
  refused("[1]", "expected a JSON object, got an array");
  refused("\"" + std::string(1000000, 'x') + "\"", "expected a JSON object");
  refused("{\"a\": \xff}", "not JSON");
  refused(golden("a").substr(0, 500), "not JSON");
  refused(std::string(1000000, '['), "nested deeper than 64 levels");
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"text_config\":";
  refused(deep, "nested deeper than 64 levels");
}

TEST(Config, FormatReadsBack) {
  for (const std::string preset : {"a", "b"}) {
    const auto config = parse_config(golden(preset));
    const auto again = parse_config(format_config(*config));
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(*again, *config);
  }
  ModelConfig text_only = *parse_config(golden("a"));
  text_only.vision_config.reset();
  text_only.dtype = DType::kF16;
  EXPECT_EQ(*parse_config(format_config(text_only)), text_only);
}

TEST(Config, ReadsFiles) {
  testing::TempFolder folder;
  EXPECT_EQ(read_config(folder / "config.json").error().code(), Code::kNotFound);
  EXPECT_THAT(read_config(folder / "config.json").error().message(),
              HasSubstr(folder / "config.json"));
  testing::write_file(folder / "config.json", golden("b"));
  EXPECT_EQ(*read_config(folder / "config.json"), *parse_config(golden("b")));
  testing::write_file(folder / "config.json", "{}");
  EXPECT_THAT(read_config(folder / "config.json").error().message(),
              HasSubstr(folder / "config.json"));
  testing::write_file(folder / "config.json", std::string((size_t{4} << 20) + 1, ' '));
  EXPECT_THAT(read_config(folder / "config.json").error().message(),
              HasSubstr("longer than 4194304 bytes"));
  EXPECT_FALSE(read_config(folder.path()));
}

}  // namespace
}  // namespace vlr
