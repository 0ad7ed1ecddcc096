#include <fmt/format.h>

#include <algorithm>

#include "kernels/deepstack_add/impls.h"

namespace vlr::ops {

Status deepstack_add_reference(const DeepstackAdd::Args& a, Context&) {
  const int64_t width = a.x.dim(1);
  for (int64_t t = 0; t < a.x.dim(0); ++t) {
    const float* x = a.x.row<float>(t);
    float* y = a.y.row<float>(t);
    const int32_t visual = a.visual_row.as<int32_t>()[t];
    if (visual >= a.features.dim(0)) {
      return invalid(DeepstackAdd::kName,
                     fmt::format("visual_row[{}] = {} of {} rows", t, visual, a.features.dim(0)));
    }
    if (visual < 0) {
      if (x != y) std::copy_n(x, width, y);
      continue;
    }
    const float* features = a.features.row<float>(visual);
    for (int64_t i = 0; i < width; ++i) y[i] = x[i] + features[i];
  }
  return {};
}

}  // namespace vlr::ops
