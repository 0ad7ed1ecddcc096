// dequantize/threads: rows over threads, and a row in runs that the format decodes at a time: codes
// to f32, then to the dtype of y.

#include <algorithm>

#include "kernels/core/load.h"
#include "kernels/core/parallel_rows.h"
#include "kernels/dequantize/impls.h"
#include "kernels/quant/formats.h"

namespace vlr::ops {
namespace {

void decode_row(const Dequantize::Args& a, const FormatInfo& format, int64_t n) {
  const int64_t row = (a.first_row + n) * a.w.cols, end = row + a.w.cols;
  for (int64_t begin = row, count; begin < end; begin += count) {
    count = std::min(format.run(a.w, begin), end - begin);
    const int64_t at = n * a.w.cols + (begin - row);
    float narrow[kMaxRun];
    float* out = a.y.dtype == DType::kF32 ? a.y.as<float>() + at : narrow;
    format.decode(a.w, begin, count, out);
    if (a.y.dtype == DType::kBF16) {
      for (int64_t i = 0; i < count; ++i) a.y.as<uint16_t>()[at + i] = f32_to_bf16(narrow[i]);
    } else if (a.y.dtype == DType::kF16) {
      for (int64_t i = 0; i < count; ++i) a.y.as<uint16_t>()[at + i] = f32_to_f16(narrow[i]);
    }
  }
}

}  // namespace

Status dequantize_threads(const Dequantize::Args& a, Context& ctx) {
  const FormatInfo& format = format_info(a.w.format);
  parallel_rows(*ctx.threads, a.y.dim(0), a.w.cols, [&](int64_t n) { decode_row(a, format, n); });
  return {};
}

}  // namespace vlr::ops
