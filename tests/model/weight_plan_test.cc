#include "model/weight_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/synthetic.h"

namespace vlr {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kQ0 = "model.language_model.layers.0.self_attn.q_proj.weight";
constexpr const char* kPatch = "model.visual.patch_embed.proj.weight";

/// The tensors of a preset, without data.
StoredTensors stored_tensors(const ModelConfig& config) {
  StoredTensors stored;
  for (const NamedShape& t : checkpoint_tensors(config)) {
    static_cast<StoredShape&>(stored[t.name]) = t;
  }
  return stored;
}

/// The same under the names that `rename` gives.
template <class F>
StoredTensors renamed(const StoredTensors& stored, F rename) {
  StoredTensors out;
  for (const auto& [name, t] : stored) out.emplace(rename(name), t);
  return out;
}

const WeightSpec* find(const WeightPlan& plan, std::string_view name) {
  const auto it = std::ranges::find(plan, name, &WeightSpec::name);
  return it == plan.end() ? nullptr : &*it;
}

TEST(CheckpointTensors, HaveThePublishedCounts) {
  const auto count = [](const char* preset, std::string_view prefix) {
    const auto list = checkpoint_tensors(*synthetic_config(preset));
    return std::ranges::count_if(list,
                                 [&](const NamedShape& t) { return t.name.starts_with(prefix); });
  };
  EXPECT_EQ(count("2b", ""), 625);
  EXPECT_EQ(count("2b", "model.visual."), 315);
  EXPECT_EQ(count("8b", ""), 750);
  EXPECT_EQ(count("8b", "model.visual."), 351);
  EXPECT_EQ(count("8b", "lm_head.weight"), 1);
  EXPECT_EQ(count("2b", "lm_head.weight"), 0);
}

TEST(CheckpointTensors, Shapes) {
  const StoredTensors t = stored_tensors(*synthetic_config("a"));
  EXPECT_EQ(describe(t.at(kPatch)), "bf16[144, 3, 2, 16, 16]");
  EXPECT_EQ(describe(t.at("model.visual.merger.norm.weight")), "bf16[144]");
  EXPECT_EQ(describe(t.at("model.visual.deepstack_merger_list.2.norm.bias")), "bf16[576]");
  EXPECT_EQ(describe(t.at("model.visual.deepstack_merger_list.0.linear_fc2.weight")),
            "bf16[128, 576]");
  EXPECT_EQ(describe(t.at("model.visual.blocks.4.mlp.linear_fc2.weight")), "bf16[144, 336]");
  EXPECT_EQ(describe(t.at("model.language_model.layers.4.self_attn.k_proj.weight")),
            "bf16[128, 128]");
  EXPECT_EQ(describe(t.at("model.language_model.layers.4.self_attn.o_proj.weight")),
            "bf16[128, 512]");
  EXPECT_EQ(describe(t.at("lm_head.weight")), "bf16[16128, 128]");
}

TEST(CanonicalName, Variants) {
  const std::pair<const char*, const char*> cases[] = {
      {kQ0, kQ0},
      {"language_model.layers.0.self_attn.q_proj.weight", kQ0},
      {"model.layers.0.self_attn.q_proj.weight", kQ0},
      {"layers.0.self_attn.q_proj.weight", kQ0},
      {"language_model.model.layers.0.self_attn.q_proj.weight", kQ0},
      {"vlm.model.language_model.layers.0.self_attn.q_proj.weight", kQ0},
      {"base_model.model.model.language_model.layers.0.self_attn.q_proj.weight", kQ0},
      {"model.embed_tokens.weight", "model.language_model.embed_tokens.weight"},
      {"model.norm.weight", "model.language_model.norm.weight"},
      {"visual.patch_embed.proj.weight", kPatch},
      {"vision_tower.patch_embed.proj.weight", kPatch},
      {"model.vision_tower.patch_embed.proj.weight", kPatch},
      {"lm_head.weight", "lm_head.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"},
      {"vlm.lm_head.weight", "lm_head.weight"},
      {"score.weight", "score.weight"},
      {"classifier.weight", "score.weight"},
      {"model.rotary.inv_freq", "rotary.inv_freq"},
      {"", ""},
      {"model.", ""},
  };
  for (const auto& [stored, canonical] : cases)
    EXPECT_EQ(canonical_name(stored), canonical) << stored;
}

TEST(CanonicalName, KeepsTheTable) {
  for (const char* preset : {"a", "2b"}) {
    for (const NamedShape& t : checkpoint_tensors(*synthetic_config(preset)))
      EXPECT_EQ(canonical_name(t.name), t.name);
  }
}

TEST(WeightPlan, PutsTogetherWhatTheModelWants) {
  const ModelConfig config = *synthetic_config("a");
  const auto plan = make_weight_plan(config, stored_tensors(config), {.yes = 7, .no = 3});
  ASSERT_TRUE(plan) << plan.error().message();
  const WeightSpec* qkv = find(*plan, "model.language_model.layers.2.self_attn.qkv_proj.weight");
  ASSERT_NE(qkv, nullptr);
  EXPECT_THAT(qkv->shape, ElementsAre(768, 128));
  ASSERT_EQ(qkv->parts.size(), 3u);
  EXPECT_EQ(qkv->parts[0].source, "model.language_model.layers.2.self_attn.q_proj.weight");
  EXPECT_EQ(qkv->parts[0].num_rows, 512);
  EXPECT_EQ(qkv->parts[1].source, "model.language_model.layers.2.self_attn.k_proj.weight");
  EXPECT_EQ(qkv->parts[2].source, "model.language_model.layers.2.self_attn.v_proj.weight");
  EXPECT_EQ(qkv->parts[2].num_rows, 128);
  const WeightSpec* gate_up = find(*plan, "model.language_model.layers.0.mlp.gate_up_proj.weight");
  ASSERT_NE(gate_up, nullptr);
  EXPECT_THAT(gate_up->shape, ElementsAre(768, 128));
  EXPECT_EQ(gate_up->parts[0].source, "model.language_model.layers.0.mlp.gate_proj.weight");
  EXPECT_EQ(gate_up->parts[1].source, "model.language_model.layers.0.mlp.up_proj.weight");
  EXPECT_THAT(find(*plan, kPatch)->shape, ElementsAre(144, 1536));
  EXPECT_EQ(find(*plan, kQ0), nullptr);
  EXPECT_EQ(find(*plan, "model.language_model.layers.0.mlp.up_proj.weight"), nullptr);

  const WeightSpec* head = find(*plan, weights::kScoreHead);
  ASSERT_NE(head, nullptr);
  EXPECT_THAT(head->shape, ElementsAre(2, 128));
  EXPECT_EQ(head->parts[0].source, "lm_head.weight");
  EXPECT_EQ(head->parts[0].first_row, 7);
  EXPECT_EQ(head->parts[1].first_row, 3);
  EXPECT_EQ(head->parts[1].num_rows, 1);
  EXPECT_EQ(find(*plan, weights::kLmHead), nullptr);
}

TEST(WeightPlan, UsesEveryRowOnce) {
  const ModelConfig config = *synthetic_config("8b");
  const StoredTensors stored = stored_tensors(config);
  const auto plan = make_weight_plan(config, stored);
  ASSERT_TRUE(plan);
  std::map<std::string, int64_t> rows;
  for (const WeightSpec& spec : *plan) {
    for (const WeightPart& p : spec.parts) rows[p.source] += p.num_rows;
  }
  EXPECT_EQ(rows.size(), stored.size());
  for (const auto& [name, t] : stored) {
    EXPECT_EQ(rows[name], name == weights::kLmHead ? 2 : t.shape[0]) << name;
  }
}

TEST(WeightPlan, TakesVariantNames) {
  const ModelConfig config = *synthetic_config("a");
  const StoredTensors stored = renamed(stored_tensors(config), [](const std::string& name) {
    if (name.starts_with("model.visual.")) return "vision_tower." + name.substr(13);
    if (name.starts_with("model.language_model.")) return "language_model.model." + name.substr(21);
    return "language_model." + name;
  });
  const auto plan = make_weight_plan(config, stored);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(find(*plan, kPatch)->parts[0].source, "vision_tower.patch_embed.proj.weight");
  EXPECT_EQ(find(*plan, weights::kScoreHead)->parts[0].source, "language_model.lm_head.weight");
}

TEST(WeightPlan, HeadFollowsTheFileAndTheDeclaration) {
  ModelConfig config = *synthetic_config("a");
  StoredTensors stored = stored_tensors(config);
  const auto head_source = [&] {
    const auto plan = make_weight_plan(config, stored);
    return plan ? find(*plan, weights::kScoreHead)->parts[0].source : plan.error().message();
  };
  EXPECT_EQ(head_source(), "lm_head.weight");
  config.tie_word_embeddings = true;
  EXPECT_EQ(head_source(), "lm_head.weight");
  stored.erase("lm_head.weight");
  EXPECT_EQ(head_source(), weights::kEmbedTokens);
  config.tie_word_embeddings = false;
  EXPECT_THAT(head_source(),
              HasSubstr("lacks 1 tensors of its configuration: lm_head.weight [16128, 128]"));
  static_cast<StoredShape&>(stored["score.weight"]) = {DType::kBF16, {1, 128}};
  EXPECT_EQ(head_source(), "score.weight");
  EXPECT_THAT(find(*make_weight_plan(config, stored), weights::kScoreHead)->shape,
              ElementsAre(1, 128));
  stored["score.weight"].shape = {2, 128};
  EXPECT_THAT(head_source(),
              HasSubstr("score.weight: expected [1, 128], got bf16[2, 128] (only one label"));
}

TEST(WeightPlan, ChecksTheTokens) {
  const ModelConfig config = *synthetic_config("a");
  const StoredTensors stored = stored_tensors(config);
  for (const int32_t id : {-1, 16128}) {
    const auto plan = make_weight_plan(config, stored, {.yes = 0, .no = id});
    EXPECT_EQ(plan.error().code(), Code::kInvalidArgument);
    EXPECT_THAT(plan.error().message(), HasSubstr("outside the vocabulary of 16128"));
  }
}

TEST(WeightPlan, TextOnly) {
  ModelConfig config = *synthetic_config("b");
  config.vision_config.reset();
  const StoredTensors stored = renamed(
      stored_tensors(config), [](const std::string& name) { return "model." + name.substr(21); });
  ASSERT_TRUE(stored.contains("model.embed_tokens.weight"));
  const auto plan = make_weight_plan(config, stored);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_NE(find(*plan, weights::kEmbedTokens), nullptr);
  EXPECT_EQ(find(*plan, kPatch), nullptr);
}

TEST(CompareNames, WeightsThatArePackedAreNamed) {
  const ModelConfig config = *synthetic_config("a");
  const std::string module = "model.language_model.layers.0.self_attn.q_proj";
  const auto says = [&](std::initializer_list<const char*> instead) {
    StoredTensors stored = stored_tensors(config);
    stored.erase(kQ0);
    for (const char* suffix : instead)
      static_cast<StoredShape&>(stored[module + suffix]) = {DType::kI32, {8, 8}};
    const Status status = compare_names(config, stored).status();
    EXPECT_EQ(status.code(), make_weight_plan(config, stored).error().code());
    return status.message();
  };
  const std::string has = "the checkpoint has " + module;
  EXPECT_EQ(says({".qweight", ".qzeros", ".scales"}),
            has + ".qweight: packed codes as AWQ and GPTQ have them, which vlr does not read");
  EXPECT_EQ(says({".qzeros"}),
            has + ".qzeros: packed codes as AWQ and GPTQ have them, which vlr does not read");
  EXPECT_EQ(says({".weight_packed", ".weight_scale", ".weight_shape"}),
            has +
                ".weight_packed: packed codes as compressed-tensors (W4A16, pack-quantized) has "
                "them, which vlr does not read");
  EXPECT_EQ(says({".weight_packed", ".weight_scale", ".weight_global_scale"}),
            has + ".weight_packed: packed codes as NVFP4 has them, which vlr does not read");
  EXPECT_THAT(says({".weight_global_scale"}), HasSubstr("as NVFP4 has them"));
  EXPECT_THAT(says({".scales"}), HasSubstr("lacks 1 tensors"));
}

TEST(CompareNames, Reports) {
  const ModelConfig config = *synthetic_config("a");
  StoredTensors stored = stored_tensors(config);
  stored.erase("model.visual.pos_embed.weight");
  stored["model.visual.merger.norm.bias"].shape = {143};
  stored["model.rotary.inv_freq"];
  const NameReport report = compare_names(config, stored);
  EXPECT_THAT(report.missing, ElementsAre("model.visual.pos_embed.weight [2304, 144]"));
  EXPECT_THAT(report.wrong_shape,
              ElementsAre("model.visual.merger.norm.bias: expected [144], got bf16[143]"));
  EXPECT_THAT(report.unexpected, ElementsAre("model.rotary.inv_freq"));
  EXPECT_EQ(report.status().code(), Code::kNotFound);

  StoredTensors more = stored_tensors(config);
  more["model.rotary.inv_freq"];
  EXPECT_TRUE(compare_names(config, more).status().ok());
  EXPECT_TRUE(make_weight_plan(config, more));
}

TEST(CompareNames, NamesUnusedTensorsThatWouldChangeScores) {
  const ModelConfig config = *synthetic_config("a");
  const std::string layers = "model.language_model.layers.";
  const auto harm = [&](const std::string& name) {
    StoredTensors stored = stored_tensors(config);
    stored[name];
    const NameReport report = compare_names(config, stored);
    EXPECT_EQ(report.harmful.empty(), !report.unexpected.empty()) << name;
    EXPECT_EQ(report.status().code(), report.harmful.empty() ? Code::kOk : Code::kUnimplemented);
    return report.harmful.empty() ? "" : report.harmful[0].substr(name.size());
  };
  const std::string count = std::to_string(config.text_config.num_hidden_layers);
  EXPECT_EQ(harm(layers + count + ".mlp.up_proj.weight"),
            ": config.json has " + count + " of them, as num_hidden_layers");
  EXPECT_EQ(harm(layers + "900.norm"),
            ": config.json has " + count + " of them, as num_hidden_layers");
  EXPECT_EQ(
      harm("model.visual.blocks.99.norm1.weight"),
      ": config.json has " + std::to_string(config.vision_config->depth) + " of them, as depth");
  EXPECT_THAT(harm("model.visual.deepstack_merger_list.99.norm.weight"), HasSubstr("deepstack"));
  EXPECT_THAT(harm("base_model.model." + layers + "0.mlp.up_proj.lora_A.weight"),
              HasSubstr("an adapter's"));
  for (const char* bias : {"score.bias", "classifier.bias", "model.score.bias", "lm_head.bias"})
    EXPECT_EQ(harm(bias), ": a bias of the head is not read");
  for (const char* beside : {"0.self_attn.q_proj.bias", "0.mlp.up_proj.weight_scale_2",
                             "0.mlp.up_proj.base.x", "0.input_layernorm.bias"})
    EXPECT_EQ(harm(layers + beside), ": is not read, and the weight beside it is");
  for (const char* harmless : {"model.rotary.inv_freq", "value_head.weight", "score",
                               "model.language_model.layers.0.self_attn.rotary_emb.inv_freq",
                               "model.language_model.layers.x.norm"})
    EXPECT_EQ(harm(harmless), "") << harmless;
}

TEST(CompareNames, ShortensTheMessage) {
  const Status status = compare_names(*synthetic_config("8b"), {}).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("lacks 750 tensors"));
  EXPECT_THAT(status.message(), HasSubstr("and 747 more"));
}

TEST(CompareNames, SaysWhenAnMlxConversionIsMet) {
  const ModelConfig config = *synthetic_config("a");
  StoredTensors stored = stored_tensors(config);
  stored[kPatch].shape = {144, 2, 16, 16, 3};
  const auto plan = make_weight_plan(config, stored);
  EXPECT_EQ(plan.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(plan.error().message(), HasSubstr("channels last, an MLX conversion"));
}

TEST(CompareNames, RefusesTwoNamesForOneTensor) {
  const ModelConfig config = *synthetic_config("a");
  StoredTensors stored = stored_tensors(config);
  stored["visual.pos_embed.weight"] = stored["model.visual.pos_embed.weight"];
  const Status status = compare_names(config, stored).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(),
              HasSubstr("stored as model.visual.pos_embed.weight and as visual.pos_embed.weight"));
}

}  // namespace
}  // namespace vlr
