/// RMSNorm over the last axis.
///   y[r, i] = x[r, i] * rsqrt(mean_j(x[r, j]^2) + eps) * weight[i]
///
///   x       [rows, dim] or [rows, heads, dim]  f32 | bf16 | f16; row and head strides are free
///   weight  [dim]  dtype of x, or with f32 x also bf16 | f16
///   y       shape and dtype of x; row and head strides are free; may be x itself, otherwise must
///           not overlap it
///
/// No rows: does nothing; dim >= 1; eps > 0.
/// Rounding: the mean accumulates in f32 or wider; x * rsqrt(...) is rounded to the dtype of x
/// before the product with weight, as Qwen3VLTextRMSNorm does.
/// Source: Zhang & Sennrich 2019, eq. 4.
#ifndef VLR_KERNELS_RMSNORM_RMSNORM_H_
#define VLR_KERNELS_RMSNORM_RMSNORM_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct RmsNorm {
  static constexpr std::string_view kName = "rmsnorm";
  struct Args {
    ConstTensor x, weight;
    Tensor y;
    float eps = 1e-6f;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<RmsNorm>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_RMSNORM_RMSNORM_H_
