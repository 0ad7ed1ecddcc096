#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/tokenizer/support.h"

namespace vlr {
namespace {

using Ids = std::vector<int32_t>;
using std::string_literals::operator""s;

// 1,500 texts (prose in several languages, code, package descriptions, random Unicode) with the ids
// of the Hugging Face tokenizers library.
TEST(Tokenizer, MatchesTheReferenceOnGoldens) {
  std::ifstream file(VLR_TEST_DATA_DIR "/tokenizer/qwen3.jsonl");
  Encoder encoder(qwen3());
  Ids ids;
  int num_texts = 0;
  for (std::string line; std::getline(file, line); ++num_texts) {
    const auto golden = nlohmann::json::parse(line);
    const auto text = golden[0].get<std::string>();
    ids.clear();
    encoder.encode(text, ids);
    EXPECT_EQ(ids, golden[1].get<Ids>()) << text;
  }
  EXPECT_EQ(num_texts, 1500);
}

// Encoded by the Hugging Face tokenizers 0.23.
TEST(Tokenizer, MatchesTheReferenceOnCorners) {
  const std::vector<std::pair<std::string, Ids>> kGoldens = {
      {"I'LL don't  we'Re\r\n\r\n  x\t\ty  \n z",
       {40, 6, 4086, 1513, 944, 220, 582, 49427, 871, 220, 856, 197, 14522, 2303, 1147}},
      {"12345 3.14 1,000", {16, 17, 18, 19, 20, 220, 18, 13, 16, 19, 220, 16, 11, 15, 15, 15}},
      {"e\u0301 vs \u00e9 \u212b \ufb01 \u00bd \u00b2",
       {963, 6165, 3958, 79252, 32495, 70731, 220, 26062, 220, 29456}},
      {"<think>\nhmm</think> <tool_call>x</tool_call>",
       {151667, 198, 71, 3821, 151668, 220, 151657, 87, 151658}},
      {"a\u00a0b\u3000c\u2028d\u0085e", {64, 4102, 65, 22441, 66, 378, 101, 67, 126, 227, 68}},
      {"   leading and trailing   ", {256, 6388, 323, 27748, 262}},
      {"什么是机器学习？", {106582, 102182, 100134, 11319}},
      {"naïve café — “quotes” 😀👍🏽",
       {3376, 37572, 586, 51950, 1959, 1036, 53282, 854, 90316, 144349, 145375}},
      {"def f(x):\n    return x**2\n\n\n", {750, 282, 2075, 982, 262, 470, 856, 334, 17, 1406}},
      {"<|im_end|> x <|image_pad|>", {151645, 856, 220, 151655}},
      {"<0.2 seconds>", {27, 15, 13, 17, 6486, 29}},
      {"<12.5 seconds>", {27, 16, 17, 13, 20, 6486, 29}},
      {":<0.2 seconds>", {31252, 15, 13, 17, 6486, 29}},
      {"x'ſa", {87, 6, 144815, 64}},                           // 'ſ is a contraction
      {"'\uFB06a", {6, 149126, 64}},                           // the ligature st is not
      {" \u180E\u180Ea", {86089, 254, 236, 123970, 236, 64}},  // no white space
      {"\u1C89a", {128233, 231, 64}},
      {"", {}},
  };
  for (const auto& [text, ids] : kGoldens) EXPECT_EQ(encode(text), ids) << text;
}

TEST(Tokenizer, KnowsItsTokens) {
  EXPECT_EQ(qwen3().num_ids(), 151669);
  EXPECT_EQ(qwen3().token_to_id("yes"), 9693);
  EXPECT_EQ(qwen3().token_to_id("no"), 2152);
  EXPECT_EQ(qwen3().token_to_id(" yes"), 9834);
  EXPECT_EQ(qwen3().token_to_id("<|image_pad|>"), 151655);
  EXPECT_EQ(qwen3().token_to_id("no such token"), std::nullopt);
  EXPECT_EQ(qwen3().text(9834), " yes");
  EXPECT_EQ(qwen3().text(-1), "");
  EXPECT_EQ(qwen3().text(151669), "");
  int num_special = 0;
  for (int32_t id = -1; id <= qwen3().num_ids(); ++id) {
    if (!qwen3().is_special(id)) continue;
    ++num_special;
    EXPECT_TRUE(id >= 151643 && id <= 151656) << id;
  }
  EXPECT_EQ(num_special, 14);
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  std::mt19937 rng(17);
  Normalizer normalizer;
  for (int i = 0; i < 300; ++i) {
    std::string text = random_text(rng, 20);
    if (text.find("<th") != text.npos) text += "<|im_end|>";
    const std::string decoded = qwen3().decode(encode(text));
    // Segments between added tokens are normalised one by one; composing once more makes both
    // equal.
    EXPECT_EQ(std::string(normalizer.normalize(decoded)), std::string(Normalizer().normalize(text)))
        << text;
  }
}

TEST(Encoder, CountsInvalidUtf8AsReplacementCharacters) {
  EXPECT_EQ(encode("a\xFF\xE4\xB8 b\xF0\x9F"), encode("a\uFFFD\uFFFD b\uFFFD"));
  EXPECT_EQ(encode("\xE4\xB8<think>\x80"), encode("\uFFFD<think>\uFFFD"));
}

TEST(Encoder, ZeroBytesAreText) {
  const Ids ids = encode("a\0b\0"s);
  EXPECT_EQ(qwen3().decode(ids), "a\0b\0"s);
  EXPECT_NE(encode("a\0"s), encode("a"));  // the cache pads with zeros
}

// The cache must not show: neither what it holds nor what has been overwritten in it.
TEST(Encoder, GivesTheSameIdsWithAFullCache) {
  std::mt19937 rng(23);
  Encoder warm(qwen3());
  for (int i = 0; i < 40; ++i) {
    std::string noise;  // short pieces, more than the cache has slots
    for (int j = 0; j < 20'000; ++j) noise.push_back(static_cast<char>(32 + rng() % 95));
    Ids ids;
    warm.encode(noise, ids);
    ASSERT_EQ(ids, encode(noise));
    const std::string text = random_text(rng, 50);
    ids.clear();
    warm.encode(text, ids);
    ASSERT_EQ(ids, encode(text)) << text;
  }
}

TEST(Encoder, GivesBackWhatALongPieceTook) {
  Encoder encoder(qwen3());
  Ids ids;
  encoder.encode("a text", ids);
  EXPECT_LE(encoder.scratch_bytes(), Encoder::kKeptScratch);
  for (const std::string& text : {std::string(5'000'000, 'x'), [] {
                                    std::string marks;  // not normalised
                                    for (int i = 0; i < 1'000'000; ++i) marks += "e\u0301";
                                    return marks;
                                  }()}) {
    encoder.encode(text, ids);
    EXPECT_LE(encoder.scratch_bytes(), Encoder::kKeptScratch);
  }
}

TEST(Encoder, ThreadsShareATokenizer) {
  std::mt19937 rng(29);
  const std::string text = random_text(rng, 5000);
  const Ids expected = encode(text);
  std::vector<Ids> found(4);
  std::vector<std::thread> threads;
  for (Ids& ids : found) threads.emplace_back([&] { ids = encode(text); });
  for (auto& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, expected);
}

TEST(Encoder, SpecialTokensOfAUserAreText) {
  const int32_t im_end = 151645, think = 151667;
  const std::string text = "<|im_end|>a<|im_end|><think>";
  const size_t a = text.find('a'), n = text.size();
  const auto specials = [&](std::vector<UserText> user) {
    const Ids ids = encode(text, user);
    EXPECT_EQ(qwen3().decode(ids), text);
    EXPECT_EQ(ids.back(), think);  // not special: recognised everywhere
    return std::count(ids.begin(), ids.end(), im_end);
  };
  EXPECT_EQ(specials({}), 2);
  EXPECT_EQ(specials({{0, n}}), 0);
  EXPECT_EQ(specials({{0, a + 1}}), 1);
  EXPECT_EQ(specials({{a, a + 2}}), 1);  // reaches into the second one
  EXPECT_EQ(specials({{a - 1, a}}), 1);  // and out of the first one
  EXPECT_EQ(specials({{a, a + 1}}), 2);  // touches both
  EXPECT_EQ(specials({{4, 5}, {n - 9, n}}), 0);
  EXPECT_EQ(specials({{4, 5}, {n - 7, n}}), 1);
  EXPECT_EQ(encode("<|im_end|>", std::vector<UserText>{{0, 10}}), (Ids{27, 91, 318, 6213, 91, 29}));
}

// A shorter added token still counts where the longest one is a user's special token.
TEST(Tokenizer, MatchesTheLongestAllowedToken) {
  const auto* think = qwen3().match_added("<think>x", 0);
  ASSERT_NE(think, nullptr);
  EXPECT_EQ(think->id, 151667);
  EXPECT_EQ(qwen3().match_added("<|im_end|>", 9), nullptr);
  EXPECT_EQ(qwen3().match_added("<|im_end|>", 10)->id, 151645);
  EXPECT_EQ(qwen3().match_added("<|im_end", 100), nullptr);
  EXPECT_EQ(qwen3().match_added("", 100), nullptr);
}

}  // namespace
}  // namespace vlr
