#include <cmath>
#include <vector>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/qk_norm_rope/impls.h"

namespace vlr::ops {

Status qk_norm_rope_reference(const QkNormRope::Args& a, Context&) {
  const int64_t dim = a.x.dim(2), half = dim / 2;
  std::vector<float> normed(static_cast<size_t>(dim));
  for (int64_t t = 0; t < a.x.dim(0); ++t) {
    const float* cosine = a.table.row<float>(t);
    const float* sine = cosine + half;
    for (int64_t h = 0; h < a.x.dim(1); ++h) {
      const ConstTensor x = row_of(a.x, t, h), weight = h < a.num_q_heads ? a.q_weight : a.k_weight;
      const Tensor y = row_of(a.y, t, h);
      double sum = 0;
      for (int64_t i = 0; i < dim; ++i) sum += std::pow(static_cast<double>(load_f32(x, i)), 2);
      const double scale =
          1 / std::sqrt(sum / static_cast<double>(dim) + static_cast<double>(a.eps));
      for (int64_t i = 0; i < dim; ++i) {
        normed[static_cast<size_t>(i)] =
            static_cast<float>(load_f32(x, i) * scale) * load_f32(weight, i);
      }
      for (int64_t d = 0; d < half; ++d) {
        const double lo = normed[static_cast<size_t>(d)],
                     hi = normed[static_cast<size_t>(d + half)];
        store_f32(y, d, static_cast<float>(lo * cosine[d] - hi * sine[d]));
        store_f32(y, d + half, static_cast<float>(hi * cosine[d] + lo * sine[d]));
      }
    }
  }
  return {};
}

}  // namespace vlr::ops
