/// Learned position embedding of the vision tower, interpolated bilinearly and added.
///   y[p] = x[p] + (w[p, 0] * table[i[p, 0]] + w[p, 1] * table[i[p, 1]] +
///                  w[p, 2] * table[i[p, 2]] + w[p, 3] * table[i[p, 3]])
///
///   x, y     [P, C]  f32 | bf16 | f16, both the same; rows may be strided; y may be x itself,
///                    otherwise must not overlap it
///   table    [N, C]  dtype of x, or with f32 x also bf16 | f16; contiguous
///   indices  [P, 4]  i32, contiguous: corners (y0,x0) (y0,x1) (y1,x0) (y1,x1), each in [0, N)
///   weights  [P, 4]  f32, contiguous
///
/// Indices out of range are refused on the CPU, and not looked for on a device.
/// Rounding: every product and every sum to f32, left to right; x is added last; then one rounding
/// to the dtype of y.
/// Source: Qwen3VLVisionModel.fast_pos_embed_interpolate (end points aligned).
#ifndef VLR_KERNELS_VISION_POS_EMBED_VISION_POS_EMBED_H_
#define VLR_KERNELS_VISION_POS_EMBED_VISION_POS_EMBED_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct VisionPosEmbed {
  static constexpr std::string_view kName = "vision_pos_embed";
  struct Args {
    ConstTensor x, table, indices, weights;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<VisionPosEmbed>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_VISION_POS_EMBED_VISION_POS_EMBED_H_
