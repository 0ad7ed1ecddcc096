#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/rope/impls.h"

namespace vlr::ops {

Status rope_reference(const Rope::Args& a, Context&) {
  const int64_t half = a.x.dim(2) / 2;
  for (int64_t t = 0; t < a.x.dim(0); ++t) {
    const float* cosine = a.table.row<float>(t);
    const float* sine = cosine + half;
    for (int64_t h = 0; h < a.x.dim(1); ++h) {
      const ConstTensor x = row_of(a.x, t, h);
      const Tensor y = row_of(a.y, t, h);
      for (int64_t d = 0; d < half; ++d) {
        const double lo = load_f32(x, d), hi = load_f32(x, d + half);
        store_f32(y, d, static_cast<float>(lo * cosine[d] - hi * sine[d]));
        store_f32(y, d + half, static_cast<float>(hi * cosine[d] + lo * sine[d]));
      }
    }
  }
  return {};
}

}  // namespace vlr::ops
