/// Copies rows, converting their dtype.
///   y[r, i] = x[r, i] in the dtype of y
///
///   x  [rows, dim]  f32 | bf16 | f16; rows may be strided
///   y  [rows, dim]  f32 | bf16 | f16; rows may be strided; must not overlap x
///
/// Rounding: to nearest even; exact where y is at least as wide.
#ifndef VLR_KERNELS_CONVERT_CONVERT_H_
#define VLR_KERNELS_CONVERT_CONVERT_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct Convert {
  static constexpr std::string_view kName = "convert";
  struct Args {
    ConstTensor x;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Convert>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_CONVERT_CONVERT_H_
