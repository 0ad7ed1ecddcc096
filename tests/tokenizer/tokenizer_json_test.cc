#include "tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include <functional>
#include <nlohmann/json.hpp>

#include "tests/tokenizer/support.h"

namespace vlr {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

/// The smallest tokenizer that is accepted: the bytes, "in", "Ġin", and two added tokens.
Json small_tokenizer() {
  Json vocab = Json::object();
  int id = 0, next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    vocab[utf8(printable ? b : static_cast<uint32_t>(next++))] = id++;
  }
  vocab["in"] = 256;
  vocab["Ġin"] = 257;
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", kSplitRegex}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}}},
      {"added_tokens",
       {{{"id", 258}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}},
        {{"id", 259}, {"content", "<think>"}, {"special", false}, {"normalized", false}}}},
      {"model",
       {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({{"i", "n"}, {"Ġ", "in"}})}}}};
}

TEST(TokenizerJson, ReadsBothSpellingsOfMerges) {
  const Json pairs = small_tokenizer();
  Json strings = pairs;
  strings["model"]["merges"] = {"i n", "Ġ in"};
  for (const Json& json : {pairs, strings}) {
    auto tokenizer = Tokenizer::from_json(json.dump());
    ASSERT_TRUE(tokenizer) << tokenizer.error().message();
    EXPECT_EQ(tokenizer->num_ids(), 260);
    EXPECT_EQ(tokenizer->token_to_id(" in"), 257);
    EXPECT_EQ(tokenizer->text(257), " in");
    EXPECT_TRUE(tokenizer->is_special(258));
    EXPECT_FALSE(tokenizer->is_special(259));
    Encoder encoder(*tokenizer);
    std::vector<int32_t> ids;
    encoder.encode("in in<think>\n<|end|>", ids);
    EXPECT_EQ(ids, (std::vector<int32_t>{256, 257, 259, *tokenizer->token_to_id("\n"), 258}));
  }
}

struct Mutation {
  const char* name;
  Code code;
  const char* message;  // part of it
  std::function<void(Json&)> apply;
};

void PrintTo(const Mutation& m, std::ostream* out) { *out << m.name; }

class BadTokenizerJson : public testing::TestWithParam<Mutation> {};

TEST_P(BadTokenizerJson, IsRefusedWithAReason) {
  Json json = small_tokenizer();
  GetParam().apply(json);
  const auto result = Tokenizer::from_json(json.dump());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), GetParam().code);
  EXPECT_THAT(result.error().message(), HasSubstr(GetParam().message));
}

constexpr Code kDamaged = Code::kDataLoss, kOther = Code::kUnimplemented;

INSTANTIATE_TEST_SUITE_P(
    All, BadTokenizerJson,
    testing::ValuesIn(std::vector<Mutation>{
        {"NoObject", kOther, "normalizer.type must be \"NFC\", got nothing",
         [](Json& j) { j = Json::array(); }},
        {"NoNormalizer", kOther, "normalizer.type", [](Json& j) { j.erase("normalizer"); }},
        {"OtherNormalizer", kOther, "got \"NFKC\"",
         [](Json& j) { j["normalizer"]["type"] = "NFKC"; }},
        {"NoPreTokenizer", kOther, "pre_tokenizer.type",
         [](Json& j) { j["pre_tokenizer"] = nullptr; }},
        {"OneStep", kOther, "[Split, ByteLevel]",
         [](Json& j) { j["pre_tokenizer"]["pretokenizers"].erase(1); }},
        {"OtherRegex", kOther, "pattern must be",
         [](Json& j) {
           j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{N}{1,3}";
         }},
        {"PrefixSpace", kOther, "add_prefix_space must be false, got true",
         [](Json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; }},
        {"PostProcessor", kOther, "post_processor.type",
         [](Json& j) {
           j["post_processor"] = {{"type", "TemplateProcessing"}};
         }},
        {"WordPiece", kOther, "model.type must be \"BPE\"",
         [](Json& j) { j["model"]["type"] = "WordPiece"; }},
        {"IgnoreMerges", kOther, "ignore_merges",
         [](Json& j) { j["model"]["ignore_merges"] = true; }},
        {"Dropout", kOther, "dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }},
        {"NoVocab", kDamaged, "model.vocab must be an object, got nothing",
         [](Json& j) { j["model"].erase("vocab"); }},
        {"VocabList", kDamaged, "model.vocab must be an object",
         [](Json& j) { j["model"]["vocab"] = Json::array(); }},
        {"NegativeId", kDamaged, "must be an id below",
         [](Json& j) { j["model"]["vocab"]["in"] = -1; }},
        {"HugeId", kDamaged, "got 4294967296",
         [](Json& j) { j["model"]["vocab"]["in"] = 1LL << 32; }},
        {"FractionalId", kDamaged, "got 1.5", [](Json& j) { j["model"]["vocab"]["in"] = 1.5; }},
        {"IdTwice", kDamaged, "have the id 7", [](Json& j) { j["model"]["vocab"]["in"] = 7; }},
        {"NotBytes", kDamaged, "byte-level alphabet",
         [](Json& j) { j["model"]["vocab"]["世"] = 300; }},
        {"EmptyToken", kDamaged, "byte-level alphabet",
         [](Json& j) { j["model"]["vocab"][""] = 300; }},
        {"NoByte", kDamaged, "no token for the byte 0x41",
         [](Json& j) { j["model"]["vocab"].erase("A"); }},
        {"NoMerges", kDamaged, "model.merges must be an array",
         [](Json& j) { j["model"].erase("merges"); }},
        {"MergeOfThree", kDamaged, "model.merges[0] must be",
         [](Json& j) {
           j["model"]["merges"][0] = Json::array({"a", "b", "c"});
         }},
        {"MergeWithTwoBlanks", kDamaged, "model.merges[0] must be",
         [](Json& j) { j["model"]["merges"][0] = "i n x"; }},
        {"MergeOfNumbers", kDamaged, "model.merges[1] must be",
         [](Json& j) {
           j["model"]["merges"][1] = {1, 2};
         }},
        {"UnknownPart", kDamaged, "is not in model.vocab",
         [](Json& j) {
           j["model"]["merges"][1] = Json::array({"in", "zz"});
         }},
        {"UnknownWhole", kDamaged, "is not in model.vocab",
         [](Json& j) {
           j["model"]["merges"][1] = Json::array({"z", "z"});
         }},
        {"AddedObject", kDamaged, "added_tokens must be an array",
         [](Json& j) { j["added_tokens"] = Json::object(); }},
        {"AddedWithoutId", kDamaged, "added_tokens[0] must have",
         [](Json& j) { j["added_tokens"][0].erase("id"); }},
        {"AddedHugeId", kDamaged, "added_tokens[0] must have",
         [](Json& j) { j["added_tokens"][0]["id"] = kMaxTokenId; }},
        {"AddedEmpty", kDamaged, "added_tokens[1] must have",
         [](Json& j) { j["added_tokens"][1]["content"] = ""; }},
        {"AddedNumber", kDamaged, "added_tokens[1] must have",
         [](Json& j) { j["added_tokens"][1] = 5; }},
        {"AddedSpecialOne", kDamaged, "added_tokens[1] must have",
         [](Json& j) { j["added_tokens"][1]["special"] = 1; }},
        {"AddedTwice", kDamaged, "another meaning",
         [](Json& j) { j["added_tokens"][1]["content"] = "<|end|>"; }},
        {"AddedTakenId", kDamaged, "another meaning",
         [](Json& j) { j["added_tokens"][1]["id"] = 12; }},
        {"AddedOtherIdInVocab", kDamaged, "another meaning",
         [](Json& j) { j["added_tokens"][1]["content"] = "in"; }},
        {"AddedNormalized", kOther, "normalized must be false",
         [](Json& j) { j["added_tokens"][1]["normalized"] = true; }},
        {"AddedStripping", kOther, "lstrip must be false",
         [](Json& j) { j["added_tokens"][1]["lstrip"] = true; }},
    }),
    [](const auto& param) { return param.param.name; });

TEST(TokenizerJson, RefusesWhatIsNotJson) {
  const std::string whole = small_tokenizer().dump();
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("\xFF\xFE"), std::string(1'000'000, '['),
        whole + "x", whole.substr(0, whole.size() / 2),
        std::string("{\"normalizer\": \"\xC0\x80\"}")}) {
    const auto result = parse_tokenizer_json(text);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), Code::kDataLoss);
    EXPECT_THAT(result.error().message(), HasSubstr("tokenizer.json: "));
  }
}

TEST(TokenizerJson, NestingIsLimited) {
  const std::string deep = std::string(300'000, '[') + std::string(300'000, ']');
  for (const std::string& text :
       {R"({"normalizer": )" + deep + "}", R"({"normalizer": {"type": )" + deep + "}}",
        R"({"model": {"vocab": {"a": )" + deep + "}}}", R"({"added_tokens": [)" + deep + "]}"}) {
    const auto result = parse_tokenizer_json(text);
    EXPECT_EQ(result.error().code(), Code::kDataLoss);
    EXPECT_THAT(result.error().message(), HasSubstr("nested deeper than 64 levels"));
  }
}

TEST(TokenizerJson, MessagesAreShort) {
  Json j = small_tokenizer();
  j["normalizer"] = Json::array();
  for (int i = 0; i < 10'000; ++i) j["normalizer"].push_back(std::string(100, 'x'));
  j["pre_tokenizer"]["pretokenizers"] = {std::string(1'000'000, 'y'), j["normalizer"]};
  j["normalizer"] = small_tokenizer()["normalizer"];
  const std::string message = parse_tokenizer_json(j.dump()).error().message();
  EXPECT_LT(message.size(), 300u);
  const std::string broken = parse_tokenizer_json("{").error().message();
  EXPECT_THAT(broken, HasSubstr("not JSON: "));
  EXPECT_EQ(broken.find("json.exception"), std::string::npos);
}

TEST(TokenizerJson, FilesHaveALimitAndAreFiles) {
  const std::string path = ::testing::TempDir() + "large_tokenizer.json";
  {
    std::ofstream file(path);
    file << "{";
  }
  std::filesystem::resize_file(path, kMaxTokenizerBytes + 1000);  // zeros that take no disk
  const auto large = Tokenizer::open(path);
  EXPECT_EQ(large.error().code(), Code::kDataLoss);
  EXPECT_THAT(large.error().message(), HasSubstr("at most 67108864 are read"));
  std::filesystem::remove(path);
  for (const char* other : {"/dev/zero", "/dev"})
    EXPECT_THAT(Tokenizer::open(other).error().message(), HasSubstr("not a regular file"));
}

TEST(TokenizerJson, OpenNamesTheFile) {
  const auto result = Tokenizer::open("/nowhere/tokenizer.json");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), Code::kNotFound);
  EXPECT_THAT(result.error().message(), HasSubstr("/nowhere/tokenizer.json"));
}

}  // namespace
}  // namespace vlr
