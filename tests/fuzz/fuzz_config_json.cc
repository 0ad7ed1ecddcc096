// A config.json is refused, or it makes a model whose sizes can be multiplied and which reads back
// as it was written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/config.h"
#include "model/weight_plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = vlr::parse_config({reinterpret_cast<const char*>(data), size});
  if (!config) {
    if (config.error().ok() || config.error().message().size() > 1000) std::abort();
    return 0;
  }
  const auto again = vlr::parse_config(vlr::format_config(*config));
  if (!again || !(*again == *config)) std::abort();
  const bool small = config->text_config.num_hidden_layers <= 8 &&
                     (!config->vision_config || config->vision_config->depth <= 8);
  if (!small) return 0;
  for (const vlr::NamedShape& t : vlr::checkpoint_tensors(*config)) {
    int64_t bytes = 2;
    for (const int64_t d : t.shape) {
      if (d <= 0 || __builtin_mul_overflow(bytes, d, &bytes)) std::abort();
    }
  }
  return 0;
}
