/// What the tokenizer's tests share.
#ifndef VLR_TESTS_TOKENIZER_SUPPORT_H_
#define VLR_TESTS_TOKENIZER_SUPPORT_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace vlr {

/// The tokenizer of Qwen3-VL-Reranker, all 151,669 tokens.
inline const Tokenizer& qwen3() {
  static const Tokenizer tokenizer = [] {
    auto result = Tokenizer::open(VLR_TEST_DATA_DIR "/tokenizer/qwen3_tokenizer.json");
    if (!result) {
      ADD_FAILURE() << result.error().message();
      std::abort();
    }
    return std::move(*result);
  }();
  return tokenizer;
}

inline std::vector<int32_t> encode(std::string_view text, std::span<const UserText> user = {}) {
  Encoder encoder(qwen3());
  std::vector<int32_t> ids;
  encoder.encode(text, user, ids);
  return ids;
}

inline std::string utf8(uint32_t c) {
  const auto byte = [](uint32_t b) { return static_cast<char>(b); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 63))};
  if (c < 0x10000) return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)),
          byte(0x80 | (c & 63))};
}

/// Text out of what the regex, the normalisation and the added tokens tell apart, in all orders.
inline std::string random_text(std::mt19937& rng, int num_parts) {
  static const std::vector<std::string> kParts = {"a",
                                                  "Zeit",
                                                  " the",
                                                  "word",
                                                  "ß",
                                                  "é",
                                                  "e\u0301",
                                                  "A\u030A",
                                                  "\u0327\u0301",
                                                  "\u0338",
                                                  "ſ",
                                                  "İ",
                                                  "Ω",
                                                  "'s",
                                                  "'LL",
                                                  "'ſ",
                                                  "'",
                                                  "’s",
                                                  "don't",
                                                  "1",
                                                  "23",
                                                  "٣",
                                                  "½",
                                                  "Ⅳ",
                                                  "１",
                                                  " ",
                                                  "  ",
                                                  "\t",
                                                  "\u00A0",
                                                  "\u0085",
                                                  "\u3000",
                                                  "\u180E",
                                                  "\u200B",
                                                  "\u2028",
                                                  "\n",
                                                  "\r\n",
                                                  "\n\n",
                                                  ".",
                                                  "?",
                                                  "!?",
                                                  "...",
                                                  "--",
                                                  ">",
                                                  "<",
                                                  ":",
                                                  "<|",
                                                  "|>",
                                                  "(",
                                                  "“",
                                                  "世界",
                                                  "你好",
                                                  "カ\u3099",
                                                  "한글",
                                                  "\u1112\u1161\u11AB",
                                                  "가\u11A8",
                                                  "हिन्दी",
                                                  "क\u093C",
                                                  "שלום",
                                                  "العربية",
                                                  "😀",
                                                  "👍🏽",
                                                  "🇫🇷",
                                                  "<think>",
                                                  "</think>",
                                                  "<tool_call>",
                                                  "Document",
                                                  "<Document>:",
                                                  "\n<Document>:",
                                                  "Query",
                                                  "\u1C89",
                                                  "\uFEFF",
                                                  "\U00031350",
                                                  "_",
                                                  "#",
                                                  "\x01"};
  std::string text;
  for (int i = 0; i < num_parts; ++i) text += kParts[rng() % kParts.size()];
  return text;
}

}  // namespace vlr

#endif  // VLR_TESTS_TOKENIZER_SUPPORT_H_
