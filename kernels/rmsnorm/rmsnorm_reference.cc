#include <cmath>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/rmsnorm/impls.h"

namespace vlr::ops {

Status rmsnorm_reference(const RmsNorm::Args& a, Context&) {
  const int64_t dim = a.x.dim(a.x.rank - 1);
  for_each_row(a.x, a.y, [&](const float* x, float* y) {
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += static_cast<double>(x[i]) * x[i];
    const double scale = 1 / std::sqrt(sum / static_cast<double>(dim) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < dim; ++i)
      y[i] = static_cast<float>(x[i] * scale) * load_f32(a.weight, i);
  });
  return {};
}

}  // namespace vlr::ops
