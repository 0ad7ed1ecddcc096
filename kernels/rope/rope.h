/// Rotary position embedding, half-split: turns the pair (d, d + D/2) of every head by the token's
/// angle d.
///   y[t, h, d]       = x[t, h, d] * cos[t, d] - x[t, h, d + D/2] * sin[t, d]
///   y[t, h, d + D/2] = x[t, h, d + D/2] * cos[t, d] + x[t, h, d] * sin[t, d]        d < D/2
///
///   x      [T, H, D]    f32 | bf16 | f16; row and head strides are free
///   table  [T, 2, D/2]  f32, contiguous: cosines, then sines (see rope_table)
///   y      [T, H, D]    dtype of x; row and head strides are free; may be x itself, otherwise must
///                       not overlap it
///
/// Rounding: products and sum in f32 or wider, then one rounding to the dtype of y.
#ifndef VLR_KERNELS_ROPE_ROPE_H_
#define VLR_KERNELS_ROPE_ROPE_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct Rope {
  static constexpr std::string_view kName = "rope";
  struct Args {
    ConstTensor x, table;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Rope>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ROPE_ROPE_H_
