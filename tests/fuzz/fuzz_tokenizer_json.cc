// Any bytes as tokenizer.json: a Status, or a tokenizer whose ids give the text back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto tokenizer = vlr::Tokenizer::from_json({reinterpret_cast<const char*>(data), size});
  if (!tokenizer) {
    if (tokenizer.error().message().empty()) std::abort();
    return 0;
  }
  // ASCII, so that normalisation changes nothing, with what the seeds add and merge.
  const std::string text =
      "<|end|> in, in <think>in</think> 12 don't\n\n  x " + std::string(300, 'n');
  vlr::Encoder encoder(*tokenizer);
  for (const auto& user : {std::vector<vlr::UserText>{}, {{0, text.size()}}}) {
    std::vector<int32_t> ids;
    encoder.encode(text, user, ids);
    if (tokenizer->decode(ids) != text) std::abort();
  }
  return 0;
}
