#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/tokenizer/support.h"

namespace vlr {
namespace {

using Ids = std::vector<int32_t>;

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

}  // namespace
}  // namespace vlr
