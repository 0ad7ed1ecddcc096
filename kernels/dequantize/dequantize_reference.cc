#include "kernels/core/load.h"
#include "kernels/dequantize/impls.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/nf4.h"

namespace vlr::ops {
namespace {

/// Value k of row n.
float value(const QuantizedWeight& w, int64_t n, int64_t k) {
  const int64_t i = n * w.cols + k;
  if (w.format == WeightFormat::kNf4) {
    const int pair = w.codes.as<uint8_t>()[i / 2];
    const int code = i % 2 == 0 ? pair >> 4 : pair & 15;
    return kNf4Codebook[static_cast<size_t>(code)] * nf4_absmax(w, i / kNf4Block);
  }
  const float scale = w.scales.as<float>()[n];
  if (w.format == WeightFormat::kInt8) return static_cast<float>(w.codes.as<int8_t>()[i]) * scale;
  return e4m3_to_f32(w.codes.as<uint8_t>()[i]) * scale;
}

}  // namespace

Status dequantize_reference(const Dequantize::Args& a, Context&) {
  for (int64_t n = 0; n < a.y.dim(0); ++n) {
    for (int64_t k = 0; k < a.w.cols; ++k)
      store_f32(a.y, n * a.w.cols + k, value(a.w, a.first_row + n, k));
  }
  return {};
}

}  // namespace vlr::ops
