#include <cmath>
#include <numbers>

#include "kernels/core/load.h"
#include "kernels/linear_w8a8/impls.h"
#include "kernels/quant/eight_bit.h"

namespace vlr::ops {
namespace {

double value(const ConstTensor& codes, int64_t i) {
  if (codes.dtype == DType::kI8) return codes.as<int8_t>()[i];
  return static_cast<double>(e4m3_to_f32(codes.as<uint8_t>()[i]));
}

float gelu_tanh(double z) {
  const double inner = std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z);
  return static_cast<float>(0.5 * z * (1 + std::tanh(inner)));
}

}  // namespace

Status linear_w8a8_reference(const LinearW8A8::Args& a, Context&) {
  const int64_t m_rows = a.x.dim(0), k_dim = a.x.dim(1), n_cols = a.w.dim(0);
  for (int64_t m = 0; m < m_rows; ++m) {
    for (int64_t n = 0; n < n_cols; ++n) {
      double acc = 0;  // exact for i8
      for (int64_t k = 0; k < k_dim; ++k)
        acc += value(a.x, m * k_dim + k) * value(a.w, n * k_dim + k);
      float y = static_cast<float>(acc) * (a.x_scale.as<float>()[m] * a.w_scale.as<float>()[n]);
      if (a.bias.defined()) y += load_f32(a.bias, n);
      if (a.activation == Activation::kGeluTanh) y = gelu_tanh(static_cast<double>(y));
      if (a.residual.defined()) y += load_f32(a.residual, m * a.residual.stride(0) + n);
      store_f32(a.y, m * a.y.stride(0) + n, y);
    }
  }
  return {};
}

}  // namespace vlr::ops
