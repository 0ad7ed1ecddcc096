/// Residual addition.
///   y[r, i] = a[r, i] + b[r, i]
///
///   a, b, y  [rows, dim]  f32 | bf16 | f16, all the same; rows may be strided; y may be a or b,
///                         otherwise must not overlap them
///
/// Rounding: the sum in f32, then to the dtype of y.
#ifndef VLR_KERNELS_ADD_ADD_H_
#define VLR_KERNELS_ADD_ADD_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct Add {
  static constexpr std::string_view kName = "add";
  struct Args {
    ConstTensor a, b;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Add>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ADD_ADD_H_
