#include "model/synthetic.h"
#include "engine/runtime/safetensors.h"
#include "engine/weights/make_checkpoint.h"
#include "engine/weights/weight_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/weight_plan.h"
#include "tests/support/appendix_d.h"
#include "tests/support/sha256.h"
#include "tests/support/temp_folder.h"

namespace vlr {
namespace {

using nlohmann::json;
using testing::read_file;
using testing::TempFolder;

std::string golden(const std::string& name) {
  return read_file(VLR_SOURCE_DIR "/tests/golden/models/" + name);
}

std::vector<float> values(std::string name, std::vector<int64_t> shape, int64_t begin,
                          size_t count) {
  std::vector<uint16_t> bits(count);
  fill_synthetic({{DType::kBF16, std::move(shape)}, std::move(name)}, begin, bits);
  std::vector<float> out;
  for (const uint16_t b : bits) out.push_back(bf16_to_f32(b));
  return out;
}

TEST(Sha256, KnownAnswers) {  // FIPS 180-4's examples
  EXPECT_EQ(testing::sha256_hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(testing::sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Hash, KnownAnswers) {
  static_assert(fnv1a64("model.language_model.embed_tokens.weight") == 0xddb796cdcc616f74);
  static_assert(splitmix64(0xddb796cdcc616f74) == 0x01522143b29a6a49);
}

TEST(FillSynthetic, FollowsTheRules) {
  const auto u = [](std::string_view name, uint64_t i) {
    return (2 * static_cast<double>(splitmix64(fnv1a64(name) + i) >> 57) - 127) / 128;
  };
  for (const uint64_t i : {0, 1, 1000}) {
    const auto at = static_cast<int64_t>(i);
    EXPECT_EQ(values("x.norm.bias", {2000}, at, 1)[0], u("x.norm.bias", i) / 8);
    EXPECT_EQ(values("lm_head.weight", {2000, 4}, at, 1)[0], u("lm_head.weight", i) / 4);
    EXPECT_EQ(values("model.embed_tokens.weight", {2000, 4}, at, 1)[0],
              u("model.embed_tokens.weight", i) / 4);
    EXPECT_EQ(values("v.pos_embed.weight", {2000, 4}, at, 1)[0], u("v.pos_embed.weight", i));
    // log2(sqrt(3 / 4096)) = -5.2; of 384 it is -3.5, which goes to even; of a 3 x 2 x 16 x 16
    // patch -4.5.
    EXPECT_EQ(values("up.weight", {2, 4096}, at, 1)[0], u("up.weight", i) / 32);
    EXPECT_EQ(values("down.weight", {9, 384}, at, 1)[0], u("down.weight", i) / 16);
    EXPECT_EQ(values("patch_embed.proj.weight", {9, 3, 2, 16, 16}, at, 1)[0],
              u("patch_embed.proj.weight", i) / 16);
    const uint64_t z = splitmix64(fnv1a64("x.norm.weight") + i);
    EXPECT_EQ(values("x.norm.weight", {2000}, at, 1)[0], 1 + static_cast<double>(z >> 61) / 32);
  }
}

TEST(FillSynthetic, PiecesAreTheWhole) {
  const std::vector<float> whole = values("up.weight", {10, 10}, 0, 100);
  EXPECT_EQ(values("up.weight", {10, 10}, 37, 63),
            std::vector<float>(whole.begin() + 37, whole.end()));
}

TEST(SyntheticConfig, SmallPresetsAreTheGoldenOnes) {
  for (const std::string preset : {"a", "b"}) {
    const auto expected = parse_config(golden(preset + "/config.json"));
    ASSERT_TRUE(expected) << expected.error().message();
    const auto config = synthetic_config(preset);
    ASSERT_TRUE(config);
    EXPECT_EQ(*config, *expected) << preset;
  }
}

TEST(SyntheticConfig, LargePresetsHaveThePublishedSizes) {
  const auto count = [](const char* preset) {
    int64_t parameters = 0;
    for (const NamedShape& t : checkpoint_tensors(*synthetic_config(preset)))
      parameters += t.numel();
    return parameters;
  };
  EXPECT_EQ(count("2b"), 2'127'532'032);
  EXPECT_EQ(count("8b"), 8'767'123'696);
}

TEST(SyntheticConfig, NamesThePresets) {
  const auto config = synthetic_config("7b");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(config.error().message(), "preset must be 2b, 8b, a or b, got '7b'");
}

// The hashes are those of the files that transformers 5.17 saved from a torch model with these
// weights.
TEST(MakeCheckpoint, FilesAreTransformersFiles) {
  TempFolder folder;
  ASSERT_EQ(make_checkpoint("a", folder / "a").message(), "");
  ASSERT_EQ(make_checkpoint("b", folder / "b").message(), "");
  const auto hash = [&](const char* name) { return testing::sha256_hex(read_file(folder / name)); };
  EXPECT_EQ(hash("a/model-00001-of-00003.safetensors"),
            "a3d0ed111d079a70f7b8027917d1dcafcb69d8b7359829b6681fdd9b36461335");
  EXPECT_EQ(hash("a/model-00002-of-00003.safetensors"),
            "e375741bf63657506df61bbee43715c1462d018e45864fe00be1016415b609e1");
  EXPECT_EQ(hash("a/model-00003-of-00003.safetensors"),
            "57907b2792ad2a96657f47f5f0d4da8b714b1338aab6df1f677a82a8e6c1439d");
  EXPECT_EQ(hash("b/model.safetensors"),
            "e8c7a79cacf82243c0bd5378bffa98fb50f50072ef9b1583882be4eadc7be160");
  EXPECT_EQ(read_file(folder / "a/model.safetensors.index.json"),
            golden("a/model.safetensors.index.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b/model.safetensors.index.json"));
  for (const std::string preset : {"a", "b"}) {
    const auto config = read_config(folder / (preset + "/config.json"));
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_EQ(*config, *parse_config(golden(preset + "/config.json")));
  }
}

TEST(MakeCheckpoint, OpensAndPlans) {
  TempFolder folder;
  for (const std::string preset : {"a", "b"}) {
    int64_t last = 0, total = 0;
    SyntheticOptions options;
    options.progress = [&](int64_t done, int64_t all) { last = done, total = all; };
    ASSERT_EQ(make_checkpoint(preset, folder / preset, options).message(), "");
    EXPECT_EQ(last, total);
    auto checkpoint = Checkpoint::open(folder / preset);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message();
    const auto config = read_config(folder / (preset + "/config.json"));
    const NameReport report = compare_names(*config, checkpoint->tensors());
    EXPECT_EQ(report.status().message(), "");
    EXPECT_TRUE(report.unexpected.empty());
    const auto plan = make_weight_plan(*config, checkpoint->tensors());
    ASSERT_TRUE(plan) << plan.error().message();
    const auto store = WeightStore::load(std::move(*checkpoint), *plan);
    ASSERT_TRUE(store) << store.error().message();

    // The head's rows are lm_head's, or embed_tokens', rows 9693 and 2152.
    const ConstTensor head = *store->get(weights::kScoreHead);
    const int64_t hidden = config->text_config.hidden_size;
    ASSERT_EQ(describe(head), "bf16[2, " + std::to_string(hidden) + "]");
    const std::string source(preset == "a" ? weights::kLmHead : weights::kEmbedTokens);
    const auto yes = values(source, {16128, hidden}, 9693 * hidden, static_cast<size_t>(hidden));
    const auto no = values(source, {16128, hidden}, 2152 * hidden, static_cast<size_t>(hidden));
    for (int64_t i = 0; i < hidden; ++i) {
      ASSERT_EQ(bf16_to_f32(head.row<uint16_t>(0)[i]), yes[static_cast<size_t>(i)]);
      ASSERT_EQ(bf16_to_f32(head.row<uint16_t>(1)[i]), no[static_cast<size_t>(i)]);
    }
  }
}

TEST(MakeCheckpoint, ReplacesAShardedCheckpoint) {
  TempFolder folder;
  ASSERT_EQ(make_checkpoint("a", folder.path()).message(), "");
  SyntheticOptions one_file;
  one_file.max_shard_bytes = int64_t{1} << 40;
  ASSERT_EQ(make_checkpoint("a", folder.path(), one_file).message(), "");
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->files().size(), 1u);
}

TEST(MakeCheckpoint, CopiesTheTokenizer) {
  TempFolder folder;
  const std::string tokenizer = VLR_SOURCE_DIR "/demo/model/tokenizer.json";
  SyntheticOptions options;
  options.tokenizer_json = tokenizer;
  ASSERT_EQ(make_checkpoint("b", folder / "b", options).message(), "");
  EXPECT_EQ(read_file(folder / "b/tokenizer.json"), read_file(tokenizer));
  options.tokenizer_json = folder / "none.json";
  EXPECT_EQ(make_checkpoint("b", folder / "b", options).code(), Code::kNotFound);
}

TEST(MakeCheckpoint, SaysWhenItCannotWrite) {
  TempFolder folder;
  testing::write_file(folder / "file", "");
  const Status status = make_checkpoint("b", folder / "file");
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find(folder / "file"), std::string::npos) << status.message();
}

TEST(MakeCheckpoint, ReplacesNoConfig) {
  TempFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "config.json");
  const Status status = make_checkpoint("b", folder.path());
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  // Whatever config.json is, the folder is somebody's, and stays as it is.
  EXPECT_EQ(status.message(),
            folder.path() + ": has another checkpoint (config.json), which only --force replaces");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "config.json"));
}

TEST(AppendixD, FirstValues) {
  using testing::appendix_d_values;
  using Values = std::vector<float>;
  EXPECT_EQ(appendix_d_values("model.language_model.embed_tokens.weight", {4}),
            (Values{-0.0625f, 0.0556640625f, 0.0107421875f, -0.0244140625f}));
  EXPECT_EQ(appendix_d_values("model.visual.patch_embed.proj.weight", {4}),
            (Values{-0.0498046875f, 0.0205078125f, -0.001953125f, -0.0380859375f}));
  EXPECT_EQ(appendix_d_values("model.language_model.norm.weight", {4}),
            (Values{1.09375f, 1.0f, 1.09375f, 1.125f}));
  EXPECT_EQ(appendix_d_values("model.visual.blocks.0.attn.qkv.bias", {4}),
            (Values{-0.0244140625f, 0.0185546875f, 0.0263671875f, 0.0400390625f}));
  const Values pixels = appendix_d_values("pixel_values", {2, 2});
  const Values expected = {-0.9372549f, 0.5137255f, -0.6f, 0.3411765f};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(pixels[i], expected[i], 1e-7);
  const Values videos = appendix_d_values("pixel_values_videos", {4});
  const Values expected_videos = {0.9843137f, -0.2078431f, -0.9372549f, 0.1686275f};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(videos[i], expected_videos[i], 1e-7);
}

}  // namespace
}  // namespace vlr
