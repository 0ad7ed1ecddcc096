// Modes of linear layers: from rules, and from a config.json of whatever content.
#include "model/quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/text.h"
#include "model/synthetic.h"
#include "model/weight_plan.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;

std::vector<QuantRule> rules(std::initializer_list<const char*> texts) {
  std::vector<QuantRule> out;
  for (const char* text : texts) out.push_back(*parse_quant_rule(text));
  return out;
}

TEST(QuantMode, Names) {
  for (const ModeInfo& m : quant_modes()) {
    EXPECT_EQ(*parse_quant_mode(m.name), m.mode);
    EXPECT_EQ(&mode_info(m.mode), &m);
    EXPECT_EQ(usual_mode(m.format) == m.mode, m.usual) << m.name;
  }
  const auto wrong = parse_quant_mode("fp5");
  EXPECT_EQ(wrong.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(
      wrong.error().message(),
      "quantisation must be one of none, nf4, fp4, int8, int8-weight, llm-int8, llm-int8-batch, "
      "fp8, fp8-weight, mxfp4, got 'fp5'");
  EXPECT_FALSE(parse_quant_mode(""));
  EXPECT_FALSE(parse_quant_mode("NF4"));
}

TEST(QuantMode, FormatsAndActivations) {
  for (const ModeInfo& info : quant_modes()) {
    const QuantMode m = info.mode;
    const WeightFormat format = m == QuantMode::kNone  ? WeightFormat::kDense
                                : m == QuantMode::kNf4 ? WeightFormat::kNf4
                                : m == QuantMode::kFp4 ? WeightFormat::kFp4
                                : m == QuantMode::kFp8 || m == QuantMode::kFp8Weight
                                    ? WeightFormat::kFp8
                                : m == QuantMode::kMxfp4 ? WeightFormat::kMxfp4
                                                         : WeightFormat::kInt8;
    EXPECT_EQ(stored_format(m), format) << quant_mode_name(m);
    EXPECT_TRUE(!sets_outliers_apart(m) || is_w8a8(m)) << quant_mode_name(m);
  }
  EXPECT_EQ(std::ranges::count_if(quant_modes(), is_w8a8, &ModeInfo::mode), 4);
  EXPECT_EQ(std::ranges::count_if(quant_modes(), sets_outliers_apart, &ModeInfo::mode), 2);
}

TEST(QuantRule, Parse) {
  const auto rule = parse_quant_rule("mlp.down_proj=int8-weight");
  ASSERT_TRUE(rule);
  EXPECT_EQ(rule->pattern, "mlp.down_proj");
  EXPECT_EQ(rule->mode, QuantMode::kInt8Weight);
  EXPECT_EQ(parse_quant_rule("a=b=nf4")->pattern, "a=b");
  for (const char* wrong : {"", "nf4", "=nf4"})
    EXPECT_THAT(parse_quant_rule(wrong).error().message(), HasSubstr("PATTERN=MODE")) << wrong;
  EXPECT_THAT(parse_quant_rule("vision=").error().message(), HasSubstr("got ''"));
  EXPECT_THAT(parse_quant_rule("vision=nf4 ").error().message(), HasSubstr("got 'nf4 '"));
}

TEST(QuantRule, LinearLayersOnly) {
  const std::string layer = "model.language_model.layers.3.", block = "model.visual.blocks.2.";
  for (const std::string& name :
       {layer + "self_attn.q_proj.weight", layer + "self_attn.o_proj.weight",
        layer + "mlp.gate_proj.weight", layer + "mlp.down_proj.weight", block + "attn.qkv.weight",
        block + "attn.proj.weight", block + "mlp.linear_fc1.weight",
        std::string("model.visual.merger.linear_fc2.weight"),
        std::string("model.visual.deepstack_merger_list.0.linear_fc1.weight")})
    EXPECT_TRUE(is_linear_weight(name)) << name;
  for (const std::string& name :
       {layer + "self_attn.q_norm.weight", layer + "input_layernorm.weight",
        block + "attn.qkv.bias", block + "norm1.weight",
        std::string("model.visual.patch_embed.proj.weight"),
        std::string("model.visual.pos_embed.weight"),
        std::string("model.visual.merger.norm.weight"), std::string(weights::kEmbedTokens),
        std::string(weights::kLmHead), std::string("score.weight"), std::string()})
    EXPECT_FALSE(is_linear_weight(name)) << name;
}

TEST(QuantRule, TheLastMatchCounts) {
  const std::string q = "model.language_model.layers.0.self_attn.q_proj.weight",
                    down = "model.language_model.layers.10.mlp.down_proj.weight",
                    fc1 = "model.visual.blocks.0.mlp.linear_fc1.weight";
  EXPECT_EQ(mode_of(q, {}), std::nullopt);
  const std::vector<QuantRule> text = rules({"text=nf4"}), vision = rules({"vision=fp8"});
  EXPECT_EQ(mode_of(q, text), QuantMode::kNf4);
  EXPECT_EQ(mode_of(fc1, text), std::nullopt);
  EXPECT_EQ(mode_of(q, vision), std::nullopt);
  EXPECT_EQ(mode_of(fc1, vision), QuantMode::kFp8);
  EXPECT_EQ(mode_of(weights::kEmbedTokens, rules({"embed=nf4"})), std::nullopt);
  const auto some = rules({"text=nf4", "layers.0.=none", "mlp.down_proj=int8"});
  EXPECT_EQ(mode_of(q, some), QuantMode::kNone);
  EXPECT_EQ(mode_of(down, some), QuantMode::kInt8);
  EXPECT_EQ(mode_of(down, rules({"mlp.down_proj=int8", "text=nf4"})), QuantMode::kNf4);
}

/// Names and shapes of a preset's tensors.
WeightPlan plan_of(const char* preset) {
  const ModelConfig config = *synthetic_config(preset);
  StoredTensors stored;
  for (const NamedShape& t : checkpoint_tensors(config))
    static_cast<StoredShape&>(stored[t.name]) = t;
  auto plan = make_weight_plan(config, stored, {.yes = 0, .no = 1});
  EXPECT_TRUE(plan) << plan.error().message();
  return *std::move(plan);
}

WeightSpec& spec_of(WeightPlan& plan, std::string_view ending) {
  return *std::ranges::find_if(plan, [&](const WeightSpec& s) { return s.name.ends_with(ending); });
}

TEST(ApplyQuantization, SetsFormatsByTheNamesThatGraphsLookUp) {
  WeightPlan plan = plan_of("a");
  const auto modes = apply_quantization(plan, rules({"text=nf4", "down_proj=llm-int8"}), {});
  ASSERT_TRUE(modes) << modes.error().message();
  for (const WeightSpec& spec : plan) {
    const bool linear =
        spec.name.starts_with(weights::kTextLayers) && spec.name.find("_proj.") != spec.name.npos;
    EXPECT_EQ(modes->contains(spec.name), linear) << spec.name;
    const WeightFormat format = !linear ? WeightFormat::kDense
                                : spec.name.find("down_proj") != spec.name.npos
                                    ? WeightFormat::kInt8
                                    : WeightFormat::kNf4;
    EXPECT_EQ(spec.format, format) << spec.name;
  }
  EXPECT_EQ(modes->at(spec_of(plan, "0.mlp.down_proj.weight").name), QuantMode::kLlmInt8);

  WeightPlan untouched = plan_of("a");
  EXPECT_TRUE(apply_quantization(untouched, {}, {})->empty());
  EXPECT_TRUE(apply_quantization(untouched, rules({"text=none"}), {})->empty());
}

TEST(ApplyQuantization, PartsOfAWeightAgree) {
  const std::string layer = "model.language_model.layers.1.";
  const auto error = [](std::initializer_list<const char*> texts) {
    WeightPlan plan = plan_of("a");
    const auto modes = apply_quantization(plan, rules(texts), {});
    EXPECT_EQ(modes.error().code(), Code::kInvalidArgument);
    return modes.error().message();
  };
  EXPECT_EQ(error({"text=nf4", "layers.1.self_attn.v_proj=none"}),
            layer + "self_attn.q_proj.weight is nf4 and " + layer +
                "self_attn.v_proj.weight none: parts of one weight need one quantisation");
  EXPECT_EQ(error({"layers.1.mlp.up_proj=nf4"}),
            layer + "mlp.gate_proj.weight is none and " + layer +
                "mlp.up_proj.weight nf4: parts of one weight need one quantisation");
}

TEST(ApplyQuantization, WhatIsStoredStays) {
  const auto stored_as = [](WeightFormat format) {
    WeightPlan plan = plan_of("a");
    for (WeightPart& part : spec_of(plan, "0.self_attn.qkv_proj.weight").parts)
      part.stored = format;
    return plan;
  };
  const std::string qkv = "model.language_model.layers.0.self_attn.qkv_proj.weight",
                    q = "model.language_model.layers.0.self_attn.q_proj.weight";
  const auto mode = [&](WeightFormat format, std::initializer_list<const char*> texts,
                        const StoredQuantization& stored) -> std::string {
    WeightPlan plan = stored_as(format);
    const auto modes = apply_quantization(plan, rules(texts), stored);
    return modes ? std::string(quant_mode_name(modes->at(qkv))) : modes.error().message();
  };
  constexpr WeightFormat kNf4 = WeightFormat::kNf4, kInt8 = WeightFormat::kInt8,
                         kFp8 = WeightFormat::kFp8;
  EXPECT_EQ(mode(kNf4, {}, {}), "nf4");
  EXPECT_EQ(mode(kFp8, {}, {}), "fp8");
  EXPECT_EQ(mode(kInt8, {}, {}), "llm-int8");
  EXPECT_EQ(mode(kInt8, {"text=int8-weight"}, {}), "int8-weight");
  StoredQuantization own;
  own.rules = rules({"text=int8"});
  EXPECT_EQ(mode(kInt8, {}, own), "int8");
  EXPECT_EQ(mode(kInt8, {"text=llm-int8-batch"}, own), "llm-int8-batch");
  own.rules = rules({"text=nf4"});  // that say something else than what is there
  own.int8_mode = QuantMode::kInt8Weight;
  EXPECT_EQ(mode(kInt8, {}, own), "int8-weight");
  EXPECT_EQ(mode(kInt8, {"text=nf4"}, {}), q + " is stored in int8 and cannot be opened as nf4");
  EXPECT_EQ(mode(kNf4, {"text=llm-int8"}, {}),
            q + " is stored in nf4 and cannot be opened as llm-int8");
  EXPECT_EQ(mode(kFp8, {"text=int8"}, {}), q + " is stored in fp8 and cannot be opened as int8");

  // Half of a weight.
  WeightPlan half = stored_as(kNf4);
  spec_of(half, "0.self_attn.qkv_proj.weight").parts[2].stored = WeightFormat::kDense;
  EXPECT_THAT(apply_quantization(half, {}, {}).error().message(),
              HasSubstr("parts of one weight need one quantisation"));
  EXPECT_TRUE(apply_quantization(half, rules({"layers.0.self_attn=nf4"}), {}));

  WeightPlan embedding = plan_of("a");
  spec_of(embedding, "embed_tokens.weight").parts[0].stored = WeightFormat::kInt8;
  const auto refused = apply_quantization(embedding, {}, {});
  EXPECT_EQ(refused.error().code(), Code::kUnimplemented);
  EXPECT_THAT(refused.error().message(),
              HasSubstr("embed_tokens.weight is stored in int8: vlr reads linear layers so"));
}

TEST(ApplyQuantization, Nf4NeedsPairsOfColumns) {
  WeightPlan plan = plan_of("a");
  spec_of(plan, "0.mlp.down_proj.weight").shape[1] = 35;
  EXPECT_THAT(apply_quantization(plan, rules({"text=nf4"}), {}).error().message(),
              HasSubstr("nf4 wants an even number of columns, got 35"));
  EXPECT_TRUE(apply_quantization(plan, rules({"text=int8"}), {}));
}

TEST(ApplyQuantization, Nf4NeedsPartsOfWholeBlocks) {
  WeightPlan plan = plan_of("a");
  WeightSpec& qkv = spec_of(plan, "0.self_attn.qkv_proj.weight");
  qkv.shape[1] = 90;
  qkv.parts[0].num_rows = 1;
  EXPECT_THAT(apply_quantization(plan, rules({"text=nf4"}), {}).error().message(),
              HasSubstr("90 values of model.language_model.layers.0.self_attn.q_proj.weight are no "
                        "whole blocks of 64"));
  EXPECT_TRUE(apply_quantization(plan, rules({"text=fp8"}), {}));
}

TEST(ApplyQuantization, RulesThatMatchNothingAreRefused) {
  const auto error = [](std::initializer_list<const char*> texts) {
    WeightPlan plan = plan_of("a");
    return apply_quantization(plan, rules(texts), {}).error().message();
  };
  EXPECT_EQ(error({"text=nf4", "layers.99.=none"}),
            "quantisation rule 'layers.99.=none': no linear layer of this model matches");
  EXPECT_THAT(error({"embed_tokens=int8"}), HasSubstr("'embed_tokens=int8'"));
  // What another tool left out of a checkpoint need not be a linear layer.
  WeightPlan plan = plan_of("a");
  StoredQuantization stored;
  stored.rules = rules({"lm_head=none"});
  EXPECT_TRUE(apply_quantization(plan, {}, stored));
}

TEST(StoredQuantization, OfConfigsThatSayNothing) {
  for (const char* text :
       {"{}", "[]", "7", R"({"quantization_config": null})", R"({"quantization_config": [1]})",
        R"({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": false}})",
        R"({"quantization_config": {"vlr": 1}})", R"({"quantization_config": {"vlr": {}}})"}) {
    const auto s = parse_stored_quantization(text);
    ASSERT_TRUE(s) << text << ": " << s.error().message();
    EXPECT_EQ(s->int8_mode, QuantMode::kLlmInt8) << text;
    EXPECT_TRUE(s->rules.empty() && s->probe.decoded.empty() && s->probe.before.empty()) << text;
  }
}

TEST(StoredQuantization, BitsandbytesOwn) {
  const auto s = parse_stored_quantization(
      R"({"quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
          "llm_int8_skip_modules": ["lm_head", "model.visual", 3, "", "layers.0.mlp"]}})");
  ASSERT_TRUE(s) << s.error().message();
  const std::string layer = "model.language_model.layers.";
  EXPECT_EQ(mode_of(layer + "1.mlp.up_proj.weight", s->rules), QuantMode::kNf4);
  EXPECT_EQ(mode_of(layer + "0.mlp.up_proj.weight", s->rules), QuantMode::kNone);
  EXPECT_EQ(mode_of("model.visual.blocks.0.attn.qkv.weight", s->rules), QuantMode::kNone);
  const auto fp4 = parse_stored_quantization(R"({"quantization_config": {"load_in_4bit": true}})");
  ASSERT_TRUE(fp4);
  EXPECT_EQ(mode_of(layer + "1.mlp.up_proj.weight", fp4->rules), QuantMode::kFp4);  // by default
  const auto eight =
      parse_stored_quantization(R"({"quantization_config": {"load_in_8bit": true}})");
  ASSERT_TRUE(eight);
  EXPECT_EQ(mode_of("model.visual.blocks.0.attn.qkv.weight", eight->rules), QuantMode::kLlmInt8);
}

/// What compressed-tensors and others say of a linear layer's weights and activations.
TEST(StoredQuantization, Published) {
  const auto mode = [](const std::string& config, const char* weight) {
    const auto s = parse_stored_quantization(R"({"quantization_config": )" + config + "}");
    if (!s) return s.error().message().substr(0, s.error().message().find(" is not read"));
    const auto m = mode_of(weight, s->rules);
    return std::string(m ? quant_mode_name(*m) : "nothing");
  };
  const char* up = "model.language_model.layers.1.mlp.up_proj.weight";
  const char* tower = "model.visual.blocks.0.attn.qkv.weight";
  const auto group = [](const std::string& form, const std::string& weights,
                        const std::string& activations) {
    return R"({"quant_method": "compressed-tensors", "format": ")" + form +
           R"(", "ignore": ["lm_head", "re:.*visual.*"], "sparsity_config": {},
           "transform_config": {}, "config_groups": {"group_0": {"targets": ["Linear"],
           "weights": {)" +
           weights + R"(}, "input_activations": )" + activations + "}}}";
  };
  const std::string fp8 = R"("num_bits": 8, "type": "float", "strategy": "channel")",
                    int8 = R"("num_bits": 8, "type": "int", "strategy": "channel",
                              "symmetric": true)",
                    tensor = R"("num_bits": 8, "type": "float", "strategy": "tensor")",
                    token = R"({"num_bits": 8, "strategy": "token", "dynamic": true})";
  EXPECT_EQ(mode(group("float-quantized", fp8, token), up), "fp8");
  EXPECT_EQ(mode(group("float-quantized", fp8, token), tower), "none");
  EXPECT_EQ(mode(group("float-quantized", tensor, token), up), "fp8");
  EXPECT_EQ(mode(group("naive-quantized", fp8, "null"), up), "fp8-weight");
  EXPECT_EQ(mode(group("int-quantized", int8, token), up), "int8");
  EXPECT_EQ(mode(group("int-quantized", int8, "null"), up), "int8-weight");
  EXPECT_EQ(mode(R"({"quant_method": "compressed-tensors", "format": "int-quantized"})", up),
            "int8");
  EXPECT_EQ(mode(R"({"quant_method": "fp8", "activation_scheme": "static",
                     "modules_to_not_convert": ["model.visual", "layers.1.mlp"]})",
                 up),
            "none");
  EXPECT_EQ(mode(R"({"quant_method": "fp8", "modules_to_not_convert": null})", tower), "fp8");

  EXPECT_EQ(mode(group("float-quantized", R"("num_bits": 4, "type": "float")", token), up),
            "compressed-tensors 'float-quantized' (weights of 4 bits)");
  EXPECT_EQ(mode(group("float-quantized", fp8, R"({"num_bits": 4})"), up),
            "compressed-tensors 'float-quantized' (activations of 4 bits)");
  EXPECT_EQ(
      mode(group("int-quantized", R"("num_bits": 8, "type": "int", "strategy": "group")", token),
           up),
      "compressed-tensors 'int-quantized' (scales by 'group')");
  EXPECT_EQ(mode(group("mixed-precision", fp8, token), up), "compressed-tensors 'mixed-precision'");
  EXPECT_EQ(mode(R"({"quant_method": "hqq"})", up), "quant_method 'hqq'");
  EXPECT_EQ(mode(R"({"quant_method": "awq\u001b[2J"})", up), "quant_method 'awq?[2J'");
  for (const char* hostile : {R"({"quant_method": "compressed-tensors", "format": 3})",
                              R"({"quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"a": 1}})",
                              R"({"quant_method": "compressed-tensors", "format": "float-quantized",
            "config_groups": {"a": {"weights": {"num_bits": "8"}}}})"})
    EXPECT_FALSE(
        parse_stored_quantization(R"({"quantization_config": )" + std::string(hostile) + "}"))
        << hostile;
}

/// What a file says is shown, cut, and commands no terminal.
TEST(StoredQuantization, MessagesShowLittleOfAFile) {
  const std::string big = "[" + std::string(15000, '1') + R"(,"\u001b[2J"])",
                    text = '"' + std::string(30000, 'x') + R"(\u009b2J")";
  for (const std::string& value : {big, text}) {
    for (const std::string& config :
         {R"({"quant_method": "fp8", "weight_block_size": )" + value + "}",
          R"({"quant_method": "compressed-tensors", "format": "float-quantized",
              "config_groups": {"a": {"weights": {"num_bits": )" +
              value + "}}}}",
          R"({"quant_method": "compressed-tensors", "format": "float-quantized",
              "config_groups": {"a": {"weights": {"num_bits": 8},
              "input_activations": {"num_bits": )" +
              value + "}}}}",
          R"({"vlr": {"rules": [)" + text + "]}}",
          R"({"vlr": {"rules": ["text=)" + text.substr(1) + "]}}",
          R"({"quant_method": "compressed-tensors", "format": "float-quantized",
              "config_groups": {)" +
              text + ": 1}}"}) {
      const auto s = parse_stored_quantization(R"({"quantization_config": )" + config + "}");
      ASSERT_FALSE(s) << config.substr(0, 200);
      EXPECT_LT(s.error().message().size(), 600u);
      EXPECT_THAT(s.error().message(), HasSubstr("..."));
      EXPECT_EQ(s.error().message(), printable(s.error().message()));
    }
  }
}

TEST(StoredQuantization, DenseChecksums) {
  const auto s = parse_stored_quantization(
      R"({"quantization_config": {"vlr": {"dense_checksums": {"a": "00000000000000ff"}}}})");
  ASSERT_TRUE(s) << s.error().message();
  EXPECT_EQ(s->dense_checksums, (std::map<std::string, uint64_t>{{"a", 255}}));
  for (const char* wrong : {"[]", R"({"a": 1})", R"({"a": "ff"})", R"({"a": "00000000000000fg"})"})
    EXPECT_FALSE(parse_stored_quantization(
        R"({"quantization_config": {"vlr": {"dense_checksums": )" + std::string(wrong) + "}}}"))
        << wrong;
}

TEST(StoredQuantization, RulesAndProbe) {
  const auto s = parse_stored_quantization(
      R"({"quantization_config": {"vlr": {"rules": ["text=nf4", "mlp.=int8"], "probe": [1, -2.5],
          "probe_decoded": [3]}}})");
  ASSERT_TRUE(s) << s.error().message();
  ASSERT_EQ(s->rules.size(), 2u);
  EXPECT_EQ(s->rules[1].pattern, "mlp.");
  EXPECT_EQ(s->rules[1].mode, QuantMode::kInt8);
  EXPECT_EQ(s->int8_mode, QuantMode::kInt8);
  EXPECT_EQ(s->probe.before, (std::vector<float>{1, -2.5f}));
  EXPECT_EQ(s->probe.decoded, std::vector<float>{3});
}

TEST(StoredQuantization, HostileConfigs) {
  const auto error = [](const std::string& vlr) {
    const auto s = parse_stored_quantization(R"({"quantization_config": {"vlr": )" + vlr + "}}");
    return s ? "read" : s.error().message();
  };
  const std::string rules = "quantization_config.vlr.rules must be a list of texts",
                    probe = "quantization_config.vlr.probe must be a list of numbers";
  EXPECT_EQ(error(R"({"rules": "text=nf4"})"), rules);
  EXPECT_EQ(error(R"({"rules": {"text": "nf4"}})"), rules);
  EXPECT_EQ(error(R"({"rules": [1]})"), rules);
  EXPECT_EQ(error(R"({"rules": ["text=nf4", null]})"), rules);
  EXPECT_EQ(error(R"({"rules": ["text"]})"),
            "quantization_config.vlr.rules: a quantisation rule is PATTERN=MODE, as "
            "in vision=nf4, got 'text'");
  EXPECT_THAT(error(R"({"rules": ["text=nf5"]})"), HasSubstr("got 'nf5'"));
  EXPECT_EQ(error(R"({"probe": 1})"), probe);
  EXPECT_EQ(error(R"({"probe": ["1"]})"), probe);
  EXPECT_EQ(error(R"({"probe": [[1]]})"), probe);
  EXPECT_EQ(error(R"({"probe": [1e300]})"), probe);  // no f32
  EXPECT_EQ(error(R"({"rules": [], "probe": []})"), "read");
  for (const char* text : {"", "{", "\xff", R"({"quantization_config": {"vlr": {"probe": [NaN]}}})",
                           R"({"quantization_config": {"vlr": {"probe": [1e999]}}})"})
    EXPECT_FALSE(parse_stored_quantization(text)) << text;
  EXPECT_FALSE(parse_stored_quantization(std::string(1 << 20, '[')));
}

}  // namespace
}  // namespace vlr
