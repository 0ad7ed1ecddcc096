/// Linear layer: the product of a matrix of rows with a weight, and what may follow it at once.
///   y[m, n] = act(sum_k x[m, k] * w[n, k] + bias[n]) + residual[m, n]
///
///   x         [M, K]  f32 | bf16 | f16; rows may be strided
///   w         [N, K]  dtype of x, or with f32 x also bf16 | f16; contiguous
///   bias      [N]     dtype of w, contiguous; optional
///   residual  [M, N]  dtype of x; rows may be strided; optional, not together with an activation;
///                     may be y itself, otherwise must not overlap it
///   y         [M, N]  dtype of x; rows may be strided; overlaps nothing else
///
/// M == 0 does nothing; N, K >= 1.
/// Rounding: f32: the sum is rounded, then the result of every following step. 16 bits: all of it
/// in f32 or wider, one rounding to the dtype of y; the product (with its bias) may be rounded once
/// before the residual is added, as cuBLASLt does.
/// Bit-invariance: a row of y depends on its row of x (and of residual) alone, whatever M is. The
/// CPU's `blocked` is one chain of fused multiply-adds over ascending k, the reference one f64 sum.
/// Exempt are `openblas`, and `cublaslt` when it was opened to be fast rather than exact.
#ifndef VLR_KERNELS_LINEAR_LINEAR_H_
#define VLR_KERNELS_LINEAR_LINEAR_H_

#include "kernels/core/op.h"

namespace vlr::ops {

enum class Activation : uint8_t { kNone, kGeluTanh };

struct Linear {
  static constexpr std::string_view kName = "linear";
  struct Args {
    ConstTensor x, w, bias, residual = {};
    Tensor y;
    Activation activation = Activation::kNone;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Linear>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_LINEAR_H_
