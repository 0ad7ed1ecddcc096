#include <fmt/format.h>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/deepstack_add/impls.h"

namespace vlr::ops {

Status deepstack_add_reference(const DeepstackAdd::Args& a, Context&) {
  for (int64_t t = 0; t < a.x.dim(0); ++t) {
    const ConstTensor x = row_of(a.x, t);
    const Tensor y = row_of(a.y, t);
    const int32_t visual = a.visual_row.as<int32_t>()[t];
    if (visual >= a.features.dim(0)) {
      return invalid(DeepstackAdd::kName,
                     fmt::format("visual_row[{}] = {} of {} rows", t, visual, a.features.dim(0)));
    }
    if (visual < 0) {
      if (x.data == y.data) continue;
      for (int64_t i = 0; i < x.dim(0); ++i) store_f32(y, i, load_f32(x, i));
      continue;
    }
    const ConstTensor features = row_of(a.features, visual);
    for (int64_t i = 0; i < x.dim(0); ++i) store_f32(y, i, load_f32(x, i) + load_f32(features, i));
  }
  return {};
}

}  // namespace vlr::ops
