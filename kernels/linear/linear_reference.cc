#include "kernels/core/load.h"
#include "kernels/linear/impls.h"

namespace vlr::ops {

Status linear_reference(const Linear::Args& a, Context&) {
  const int64_t m_rows = a.x.dim(0), k_dim = a.x.dim(1), n_cols = a.w.dim(0);
  for (int64_t m = 0; m < m_rows; ++m) {
    const float* x = a.x.row<float>(m);
    float* y = a.y.row<float>(m);
    for (int64_t n = 0; n < n_cols; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < k_dim; ++k)
        sum += static_cast<double>(x[k]) * load_f32(a.w, n * k_dim + k);
      y[n] = static_cast<float>(sum);
      if (a.bias.defined()) y[n] += load_f32(a.bias, n);
    }
  }
  return {};
}

}  // namespace vlr::ops
