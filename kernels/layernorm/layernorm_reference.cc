#include <cmath>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/layernorm/impls.h"

namespace vlr::ops {

Status layernorm_reference(const LayerNorm::Args& a, Context&) {
  const int64_t dim = a.x.dim(1);
  for_each_row(a.x, a.y, [&](const ConstTensor& x, const Tensor& y) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < dim; ++i) mean += load_f32(x, i);
    mean /= static_cast<double>(dim);
    for (int64_t i = 0; i < dim; ++i) variance += std::pow(load_f32(x, i) - mean, 2);
    const double scale =
        1 / std::sqrt(variance / static_cast<double>(dim) + static_cast<double>(a.eps));
    for (int64_t i = 0; i < dim; ++i) {
      const double weight = load_f32(a.weight, i), bias = load_f32(a.bias, i);
      store_f32(y, i, static_cast<float>((load_f32(x, i) - mean) * scale * weight + bias));
    }
  });
  return {};
}

}  // namespace vlr::ops
