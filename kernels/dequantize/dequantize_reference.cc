#include "kernels/core/load.h"
#include "kernels/dequantize/impls.h"
#include "kernels/quant/formats.h"

namespace vlr::ops {

Status dequantize_reference(const Dequantize::Args& a, Context&) {
  const FormatInfo& format = format_info(a.w.format);
  for (int64_t n = 0; n < a.y.dim(0); ++n) {
    for (int64_t k = 0; k < a.w.cols; ++k)
      store_f32(a.y, n * a.w.cols + k, format.value(a.w, a.first_row + n, k));
  }
  return {};
}

}  // namespace vlr::ops
