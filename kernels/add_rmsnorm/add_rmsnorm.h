/// Residual addition and the RMSNorm of the sum, in one pass over memory.
///   sum[r] = a[r] + b[r]        y[r] = RMSNorm(sum[r], weight, eps)
///
///   a, b    [rows, dim]  f32 | bf16 | f16, both the same; rows may be strided
///   weight  [dim]        dtype of a, or with f32 a also bf16 | f16
///   sum     [rows, dim]  dtype of a; rows may be strided; may be a or b, otherwise must not
///   overlap
///                        them
///   y       [rows, dim]  dtype of a; rows may be strided; overlaps nothing
///
/// dim >= 1; eps > 0.
/// Rounding: as add, then as rmsnorm of what add has written.
#ifndef VLR_KERNELS_ADD_RMSNORM_ADD_RMSNORM_H_
#define VLR_KERNELS_ADD_RMSNORM_ADD_RMSNORM_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct AddRmsNorm {
  static constexpr std::string_view kName = "add_rmsnorm";
  struct Args {
    ConstTensor a, b, weight;
    Tensor sum, y;
    float eps = 1e-6f;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<AddRmsNorm>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ADD_RMSNORM_ADD_RMSNORM_H_
