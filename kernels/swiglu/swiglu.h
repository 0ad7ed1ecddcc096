/// The gate of the text decoder's MLP.
///   y[t, i] = silu(gate[t, i]) * up[t, i]       silu(z) = z / (1 + exp(-z))
///
///   gate, up  [T, F]  f32 | bf16 | f16, both the same; rows may be strided (they are usually the
///                     two halves of one product)
///   y         [T, F]  dtype of gate; rows may be strided; may be gate or up, otherwise must not
///                     overlap them
///
/// Rounding: silu(gate) is rounded to the dtype of y before the product with up.
/// Source: Shazeer 2020.
#ifndef VLR_KERNELS_SWIGLU_SWIGLU_H_
#define VLR_KERNELS_SWIGLU_SWIGLU_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct SwiGlu {
  static constexpr std::string_view kName = "swiglu";
  struct Args {
    ConstTensor gate, up;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<SwiGlu>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_SWIGLU_SWIGLU_H_
