#include "kernels/rope/impls.h"

namespace vlr::ops {

Status rope_reference(const Rope::Args& a, Context&) {
  const int64_t half = a.x.dim(2) / 2;
  for (int64_t t = 0; t < a.x.dim(0); ++t) {
    const float* cosine = a.table.row<float>(t);
    const float* sine = cosine + half;
    for (int64_t h = 0; h < a.x.dim(1); ++h) {
      const float* x = a.x.row<float>(t) + h * a.x.stride(1);
      float* y = a.y.row<float>(t) + h * a.y.stride(1);
      for (int64_t d = 0; d < half; ++d) {
        const double lo = x[d], hi = x[d + half];
        y[d] = static_cast<float>(lo * cosine[d] - hi * sine[d]);
        y[d + half] = static_cast<float>(hi * cosine[d] + lo * sine[d]);
      }
    }
  }
  return {};
}

}  // namespace vlr::ops
