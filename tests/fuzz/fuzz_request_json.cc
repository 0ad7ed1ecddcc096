// A request's JSON: it parses or it says why not.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/api/request_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = vlr::parse_request({reinterpret_cast<const char*>(data), size});
  if (!parsed && parsed.error().message().empty()) std::abort();
  if (parsed && parsed->relevant && *parsed->relevant >= std::ssize(parsed->request.documents))
    std::abort();
  return 0;
}
