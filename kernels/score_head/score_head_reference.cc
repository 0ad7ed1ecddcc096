#include <cmath>

#include "kernels/core/load.h"
#include "kernels/score_head/impls.h"

namespace vlr::ops {

Status score_head_reference(const ScoreHead::Args& a, Context&) {
  const int64_t dim = a.x.dim(1);
  for (int64_t b = 0; b < a.x.dim(0); ++b) {
    const float* x = a.x.row<float>(b);
    double squares = 0, sum = 0;
    for (int64_t i = 0; i < dim; ++i) squares += static_cast<double>(x[i]) * x[i];
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(dim) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < dim; ++i) {
      double yes_minus_no = load_f32(a.w, i);
      if (a.w.dim(0) == 2) yes_minus_no -= load_f32(a.w, dim + i);
      sum += x[i] * scale * load_f32(a.norm_weight, i) * yes_minus_no;
    }
    a.log_odds.as<float>()[b] = static_cast<float>(sum);
  }
  return {};
}

}  // namespace vlr::ops
