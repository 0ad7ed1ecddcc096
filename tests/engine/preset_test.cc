// Presets: which one is taken, what it sets, and what it leaves alone.
#include "engine/placement/preset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/checkpoints.h"

namespace vlr {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ResolvedPreset resolved(Options& options, bool stored_quantized = false, int64_t card = 0) {
  auto preset = resolve_preset(options, stored_quantized, card);
  EXPECT_TRUE(preset) << preset.error().message();
  return preset ? *preset : ResolvedPreset{};
}

TEST(Preset, NoneChangesNothing) {
  Options o;
  EXPECT_EQ(resolved(o, false, 8'000'000'000).explanation, "");
  EXPECT_EQ(o.quant, "");
  EXPECT_EQ(o.max_length, Options().max_length);
  EXPECT_EQ(o.batch_tokens, 0);
}

TEST(Preset, SetsQuantisationLengthAndBatch) {
  struct Expected {
    const char *name, *quant;
    int64_t max_length, documents;
  };
  for (const Expected& e :
       {Expected{"high", "", 32768, 8}, {"mid", "int8", 16384, 4}, {"low", "nf4", 8192, 2}}) {
    SCOPED_TRACE(e.name);
    Options o{.preset = e.name};
    const ResolvedPreset preset = resolved(o);
    EXPECT_EQ(preset.name, e.name);
    EXPECT_EQ(o.quant, e.quant);
    EXPECT_EQ(o.max_length, e.max_length);
    // A pair of full length has five tokens more.
    EXPECT_EQ(o.batch_tokens, e.documents * (e.max_length + 5));
    EXPECT_THAT(preset.explanation,
                AllOf(StartsWith("preset " + std::string(e.name)), HasSubstr("as asked for"),
                      HasSubstr("max_length " + std::to_string(e.max_length)),
                      HasSubstr("Kept as given: nothing.")));
  }
}

TEST(Preset, AutoTakesTheSmallerOfCapAndCard) {
  const auto chosen = [](int64_t cap, int64_t card) {
    Options o{.preset = "auto", .gpu_memory = cap};
    return resolved(o, false, card).name;
  };
  EXPECT_EQ(chosen(0, 80'000'000'000), "high");
  EXPECT_EQ(chosen(0, 24'100'000'000), "high");
  EXPECT_EQ(chosen(0, 23'000'000'000), "high");
  EXPECT_EQ(chosen(0, 22'999'999'999), "mid");
  EXPECT_EQ(chosen(0, 15'000'000'000), "mid");
  EXPECT_EQ(chosen(0, 14'999'999'999), "low");
  EXPECT_EQ(chosen(0, 8'000'000'000), "low");
  EXPECT_EQ(chosen(16'000'000'000, 80'000'000'000), "mid");
  EXPECT_EQ(chosen(80'000'000'000, 12'600'000'000), "low");
  EXPECT_EQ(chosen(16'000'000'000, 0), "mid");
  EXPECT_EQ(chosen(0, 0), "high");
}

TEST(Preset, AutoSaysWhy) {
  const auto why = [](int64_t cap, int64_t card) {
    Options o{.preset = "auto", .gpu_memory = cap};
    return resolved(o, false, card).explanation;
  };
  EXPECT_THAT(why(0, 16'900'000'000), StartsWith("preset mid, for cards of 16 GB, as the card has "
                                                 "15.74 GiB."));
  EXPECT_THAT(why(10'000'000'000, 16'900'000'000), HasSubstr("as gpu_memory is 9.31 GiB"));
  EXPECT_THAT(why(0, 0), HasSubstr("neither a card nor gpu_memory says"));
}

TEST(Preset, WhatTheCallerSetStays) {
  Options all{.preset = "low", .quant = "none", .max_length = 4096, .batch_tokens = 99};
  EXPECT_THAT(
      resolved(all).explanation,
      HasSubstr("It sets: nothing. Kept as given: quant none, max_length 4096, batch_tokens 99."));
  EXPECT_EQ(all.quant, "none");
  EXPECT_EQ(all.max_length, 4096);
  EXPECT_EQ(all.batch_tokens, 99);

  Options rules{.preset = "low", .quant_rules = {"vision=nf4"}, .max_length = 100};
  EXPECT_THAT(resolved(rules).explanation, HasSubstr("Kept as given: quant_rules, max_length"));
  EXPECT_EQ(rules.quant, "");
  EXPECT_EQ(rules.batch_tokens, 2 * 105);  // documents as long as the caller allows them to be

  Options stored{.preset = "mid"};
  EXPECT_THAT(resolved(stored, true).explanation,
              HasSubstr("Kept as given: weights as the checkpoint stores them."));
  EXPECT_EQ(stored.quant, "");
}

TEST(Preset, UnknownNamesAreRefused) {
  const auto error = Reranker::open(demo_model(), {.device = "cpu", .preset = "ultra"}).error();
  EXPECT_EQ(error.code(), Code::kInvalidArgument);
  EXPECT_EQ(error.message(), "options: preset must be auto, high, mid or low, got 'ultra'");
  EXPECT_EQ(Reranker::plan(demo_model(), {.preset = "High"}, {}).error().code(),
            Code::kInvalidArgument);
}

TEST(Preset, OpensAndPlansTheSameOnTheCpu) {
  std::vector<std::string> lines;
  Options options{.device = "cpu", .preset = "mid"};
  options.log = [&](std::string_view line) { lines.emplace_back(line); };
  const Reranker reranker = open_or_die(demo_model(), options);
  EXPECT_EQ(reranker.quant(), "int8");
  EXPECT_EQ(lines, std::vector<std::string>{std::string(reranker.preset())});
  const auto plan = Reranker::plan(demo_model(), options, {});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->preset, reranker.preset());
  EXPECT_EQ(open_or_die(demo_model()).preset(), "");
}

}  // namespace
}  // namespace vlr
