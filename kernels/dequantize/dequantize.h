/// Rows of a quantised weight as numbers.
///   y[n, k] = value of w[first_row + n, k]
///
///   w   [N, K]  in any of kernels/quant/formats.h
///   y   [n, K]  f32 | bf16 | f16; contiguous; first_row + n <= N
///
/// Rounding: the value's product is made in f32 and rounded once, to the dtype of y. Exact: every
/// implementation gives the same bits.
#ifndef VLR_KERNELS_DEQUANTIZE_DEQUANTIZE_H_
#define VLR_KERNELS_DEQUANTIZE_DEQUANTIZE_H_

#include "kernels/core/op.h"
#include "kernels/quant/quantized_weight.h"

namespace vlr::ops {

struct Dequantize {
  static constexpr std::string_view kName = "dequantize";
  struct Args {
    QuantizedWeight w;
    int64_t first_row = 0;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Dequantize>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_DEQUANTIZE_DEQUANTIZE_H_
