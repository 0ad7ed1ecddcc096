/// RMSNorm whose result is wanted in 8 bits alone: rmsnorm, then quantize_rows, in one pass.
///   q, scale = quantize_rows(rmsnorm(x, weight, eps))
///
///   x       [M, K]  f32 | bf16 | f16; rows may be strided
///   weight  [K]     dtype of x, or with f32 x also bf16 | f16
///   q       [M, K]  i8 | f8e4m3; contiguous
///   scale   [M]     f32, contiguous
///
/// M == 0 does nothing; K >= 1; eps > 0.
/// Rounding: rmsnorm's result is rounded to the dtype of x before it is quantised, as the two ops
/// one after the other do: kernels/rmsnorm/rmsnorm.h, kernels/quantize_rows/quantize_rows.h.
#ifndef VLR_KERNELS_RMSNORM_QUANTIZE_RMSNORM_QUANTIZE_H_
#define VLR_KERNELS_RMSNORM_QUANTIZE_RMSNORM_QUANTIZE_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct RmsNormQuantize {
  static constexpr std::string_view kName = "rmsnorm_quantize";
  struct Args {
    ConstTensor x, weight;
    Tensor q, scale;
    float eps = 1e-6f;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<RmsNormQuantize>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_RMSNORM_QUANTIZE_RMSNORM_QUANTIZE_H_
