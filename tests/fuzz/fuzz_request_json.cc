// A request's JSON: it parses or it says why not, and so does a document alone. What was read is
// UTF-8, and a request that is usable is JSON as a whole.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/api/json_reader.h"
#include "engine/api/request_json.h"
#include "tokenizer/pretokenize.h"

namespace {

void check(const vlr::Content& c) {
  for (const std::string& text : c.texts) {
    std::string valid;
    vlr::append_valid_utf8(text, valid);
    if (valid != text) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = vlr::parse_request(text);
  if (parsed) {
    if (vlr::json_extent(text) != vlr::JsonExtent::kWhole) std::abort();
    check(parsed->request.query);
    for (const vlr::Content& c : parsed->request.documents) check(c);
  }
  check(vlr::parse_side(text));
  if (!parsed && parsed.error().message().empty()) std::abort();
  if (parsed && parsed->relevant && *parsed->relevant >= std::ssize(parsed->request.documents))
    std::abort();
  return 0;
}
