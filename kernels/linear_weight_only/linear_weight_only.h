/// Linear layer whose weight alone is quantised: `linear` with the weight's values rounded to the
/// dtype of x.
///   W = dequantize(w) rows [first_row, first_row + N)
///   y[m, n] = act(sum_k x[m, k] * W[n, k] + bias[n]) + residual[m, n]
///
///   x         [M, K]  f32 | bf16 | f16; rows may be strided
///   w         [.., K] nf4 | int8 | fp8: kernels/quant/quantized_weight.h
///   bias      [N]     dtype of x, or with f32 x also bf16 | f16; contiguous; optional
///   residual  [M, N]  dtype of x; rows may be strided; optional, not together with an activation;
///                     may be y itself, otherwise must not overlap it
///   y         [M, N]  dtype of x; rows may be strided; overlaps nothing else
///
/// M == 0 does nothing.
/// Rounding and bit-invariance: those of kernels/linear/linear.h. On a GPU in exact mode every
/// implementation gives the bits that `linear` gives on the dequantised weight, so that which one
/// runs may depend on M: tests and the check at open hold them to it.
#ifndef VLR_KERNELS_LINEAR_WEIGHT_ONLY_LINEAR_WEIGHT_ONLY_H_
#define VLR_KERNELS_LINEAR_WEIGHT_ONLY_LINEAR_WEIGHT_ONLY_H_

#include "kernels/core/op.h"
#include "kernels/linear/linear.h"
#include "kernels/quant/quantized_weight.h"

namespace vlr::ops {

struct LinearWeightOnly {
  static constexpr std::string_view kName = "linear_weight_only";
  struct Args {
    ConstTensor x;
    QuantizedWeight w;
    int64_t first_row = 0;
    ConstTensor bias = {}, residual = {};
    Tensor y;
    Activation activation = Activation::kNone;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<LinearWeightOnly>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_WEIGHT_ONLY_LINEAR_WEIGHT_ONLY_H_
