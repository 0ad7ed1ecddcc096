/// Linear layer on 8-bit codes of both operands, with a scale a token and a scale an output
/// channel.
///   acc[m, n] = sum_k x[m, k] * w[n, k]
///   y[m, n] = act(acc[m, n] * (x_scale[m] * w_scale[n]) + bias[n]) + residual[m, n]
///
///   x         [M, K]  i8 | f8e4m3; contiguous
///   x_scale   [M]     f32, contiguous
///   w         [N, K]  dtype of x; contiguous
///   w_scale   [N]     f32, contiguous
///   bias      [N]     dtype of y, or with f32 y also bf16 | f16; contiguous; optional
///   residual  [M, N]  dtype of y; rows may be strided; optional, not together with an activation;
///                     may be y itself, otherwise must not overlap it
///   y         [M, N]  f32 | bf16 | f16; rows may be strided; overlaps nothing else
///
/// M == 0 does nothing; N, K >= 1; for i8, K < 2^17.
/// Rounding: i8: acc is exact (s32), then all of it in f32. f8e4m3: acc in f32, or in what the
/// tensor cores keep of it where the library sums fast; the sum, and what follows it, may be
/// rounded to 16 bits before each further step. One rounding to the dtype of y at the end.
/// Bit-invariance: as kernels/linear/linear.h.
/// Source: kernels/quantize_rows/quantize_rows.h makes x and x_scale.
#ifndef VLR_KERNELS_LINEAR_W8A8_LINEAR_W8A8_H_
#define VLR_KERNELS_LINEAR_W8A8_LINEAR_W8A8_H_

#include "kernels/core/op.h"
#include "kernels/linear/linear.h"

namespace vlr::ops {

struct LinearW8A8 {
  static constexpr std::string_view kName = "linear_w8a8";
  struct Args {
    ConstTensor x, x_scale, w, w_scale, bias = {}, residual = {};
    Tensor y;
    Activation activation = Activation::kNone;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<LinearW8A8>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_W8A8_LINEAR_W8A8_H_
