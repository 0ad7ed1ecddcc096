/// LayerNorm over the last axis, biased variance, affine.
///   y[r, i] = (x[r, i] - mean) / sqrt(mean_j((x[r, j] - mean)^2) + eps) * weight[i] + bias[i]
///
///   x             [rows, dim]  f32 | bf16 | f16; rows may be strided
///   weight, bias  [dim]        dtype of x, or with f32 x also bf16 | f16; both the same
///   y             [rows, dim]  dtype of x; rows may be strided; may be x itself, otherwise must
///   not
///                              overlap it
///
/// No rows: does nothing; dim >= 1; eps > 0.
/// Rounding: statistics and the affine map in f32 or wider, one rounding to the dtype of y.
/// Source: Ba, Kiros & Hinton 2016, eq. 3.
#ifndef VLR_KERNELS_LAYERNORM_LAYERNORM_H_
#define VLR_KERNELS_LAYERNORM_LAYERNORM_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct LayerNorm {
  static constexpr std::string_view kName = "layernorm";
  struct Args {
    ConstTensor x, weight, bias;
    Tensor y;
    float eps = 1e-6f;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<LayerNorm>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LAYERNORM_LAYERNORM_H_
