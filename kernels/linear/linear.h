/// Linear layer: the product of a matrix of rows with a weight, plus a bias.
///   y[m, n] = sum_k x[m, k] * w[n, k] + bias[n]
///
///   x     [M, K]  f32; rows may be strided
///   w     [N, K]  f32 | bf16 | f16, contiguous
///   bias  [N]     dtype of w, contiguous; optional
///   y     [M, N]  f32; rows may be strided; overlaps nothing
///
/// M == 0 does nothing; N, K >= 1.
/// Rounding: the sum is rounded to f32, then the bias is added and the result rounded again.
/// Bit-invariance: a row of y depends on its row of x alone. Every implementation but `openblas` is
/// one chain of fused multiply-adds over ascending k, or (the reference) one f64 sum, whatever M
/// is.
#ifndef VLR_KERNELS_LINEAR_LINEAR_H_
#define VLR_KERNELS_LINEAR_LINEAR_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct Linear {
  static constexpr std::string_view kName = "linear";
  struct Args {
    ConstTensor x, w, bias;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Linear>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_LINEAR_H_
