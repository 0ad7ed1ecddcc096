#include <cmath>
#include <vector>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quantize_rows/impls.h"

namespace vlr::ops {
namespace {

void store_code(const Tensor& q, int64_t i, float v) {
  if (q.dtype == DType::kI8) {
    q.as<int8_t>()[i] = to_int8(v, 1);
  } else {
    q.as<uint8_t>()[i] = f32_to_e4m3(v);
  }
}

}  // namespace

Status quantize_rows_reference(const QuantizeRows::Args& a, Context&) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1);
  const float largest = largest_code(a.q.dtype);
  const auto is_large = [&](float v) {
    return a.outliers.defined() && std::fabs(v) >= a.threshold;
  };

  std::vector<bool> large_column(static_cast<size_t>(dim));
  for (int64_t m = 0; m < rows && a.by_column; ++m) {
    for (int64_t k = 0; k < dim; ++k) {
      if (is_large(load_f32(row_of(a.x, m), k))) large_column[static_cast<size_t>(k)] = true;
    }
  }

  for (int64_t m = 0; m < rows; ++m) {
    const ConstTensor x = row_of(a.x, m);
    const auto stands_out = [&](int64_t k) {
      return a.by_column ? large_column[static_cast<size_t>(k)] : is_large(load_f32(x, k));
    };
    float absmax = 0;
    for (int64_t k = 0; k < dim; ++k) {
      const float size = stands_out(k) ? 0 : std::fabs(load_f32(x, k));
      if (size > absmax || std::isnan(size)) absmax = size;  // nothing is above NaN: it stays
    }
    a.scale.as<float>()[m] = absmax / largest;
    const float inverse = inverse_scale(absmax, largest);
    for (int64_t k = 0; k < dim; ++k) {
      const float v = load_f32(x, k);
      store_code(a.q, m * dim + k, stands_out(k) ? 0 : v * inverse);
      if (a.outliers.defined()) store_f32(a.outliers, m * dim + k, stands_out(k) ? v : 0);
    }
  }
  return {};
}

}  // namespace vlr::ops
