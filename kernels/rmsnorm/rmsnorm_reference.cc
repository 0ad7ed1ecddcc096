#include <cmath>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/rmsnorm/impls.h"

namespace vlr::ops {

Status rmsnorm_reference(const RmsNorm::Args& a, Context&) {
  const int64_t dim = a.x.dim(a.x.rank - 1);
  for_each_row(a.x, a.y, [&](const ConstTensor& x, const Tensor& y) {
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += std::pow(static_cast<double>(load_f32(x, i)), 2);
    const double scale = 1 / std::sqrt(sum / static_cast<double>(dim) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < dim; ++i) {
      const float normed = round_to(x.dtype, static_cast<float>(load_f32(x, i) * scale));
      store_f32(y, i, normed * load_f32(a.weight, i));
    }
  });
  return {};
}

}  // namespace vlr::ops
