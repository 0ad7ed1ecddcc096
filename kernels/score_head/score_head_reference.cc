#include <cmath>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/score_head/impls.h"

namespace vlr::ops {

Status score_head_reference(const ScoreHead::Args& a, Context&) {
  const int64_t dim = a.x.dim(1);
  for (int64_t b = 0; b < a.x.dim(0); ++b) {
    const ConstTensor x = row_of(a.x, b);
    double squares = 0, sum = 0;
    for (int64_t i = 0; i < dim; ++i) squares += std::pow(static_cast<double>(load_f32(x, i)), 2);
    const double scale =
        1 / std::sqrt(squares / static_cast<double>(dim) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < dim; ++i) {
      double yes_minus_no = load_f32(a.w, i);
      if (a.w.dim(0) == 2) yes_minus_no -= load_f32(a.w, dim + i);
      sum += load_f32(x, i) * scale * load_f32(a.norm_weight, i) * yes_minus_no;
    }
    a.log_odds.as<float>()[b] = static_cast<float>(sum);
  }
  return {};
}

}  // namespace vlr::ops
