#include <cmath>
#include <numbers>

#include "kernels/core/load.h"
#include "kernels/linear/impls.h"

namespace vlr::ops {
namespace {

double gelu_tanh(double z) {
  return 0.5 * z * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z)));
}

}  // namespace

Status linear_reference(const Linear::Args& a, Context&) {
  const int64_t m_rows = a.x.dim(0), k_dim = a.x.dim(1), n_cols = a.w.dim(0);
  // f32 is rounded after each step, 16 bits once, by the store.
  const auto step = [rounds = a.x.dtype == DType::kF32](double v) {
    return rounds ? static_cast<double>(static_cast<float>(v)) : v;
  };
  for (int64_t m = 0; m < m_rows; ++m) {
    const int64_t x = m * a.x.stride(0), y = m * a.y.stride(0);
    for (int64_t n = 0; n < n_cols; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < k_dim; ++k)
        sum += static_cast<double>(load_f32(a.x, x + k)) * load_f32(a.w, n * k_dim + k);
      sum = step(sum);
      if (a.bias.defined()) sum = step(sum + load_f32(a.bias, n));
      if (a.activation == Activation::kGeluTanh) sum = step(gelu_tanh(sum));
      if (a.residual.defined())
        sum = step(sum + load_f32(a.residual, m * a.residual.stride(0) + n));
      store_f32(a.y, y + n, static_cast<float>(sum));
    }
  }
  return {};
}

}  // namespace vlr::ops
