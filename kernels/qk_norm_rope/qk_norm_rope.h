/// What queries and keys go through before attention: RMSNorm of every head, then the rotation.
///   n[t, h] = RMSNorm(x[t, h], h < num_q_heads ? q_weight : k_weight, eps)
///   y[t]    = Rope(n[t], table[t])
///
///   x         [T, H, D]    f32 | bf16 | f16; row and head strides are free; queries first, then
///                          keys, as the columns of one product hold them
///   q_weight  [D]          dtype of x, or with f32 x also bf16 | f16; optional when
///                          num_q_heads = 0
///   k_weight  [D]          the same; optional when num_q_heads = H
///   table     [T, 2, D/2]  f32, contiguous: cosines, then sines (see rope_table)
///   y         [T, H, D]    dtype of x; row and head strides are free; may be x itself, otherwise
///                          must not overlap it
///
/// 0 <= num_q_heads <= H; D even, >= 2; eps > 0.
/// Rounding: f32 or wider throughout, one rounding to the dtype of y. With f32 x that is rmsnorm,
/// then rope; with 16 bits it leaves out the roundings between them.
#ifndef VLR_KERNELS_QK_NORM_ROPE_QK_NORM_ROPE_H_
#define VLR_KERNELS_QK_NORM_ROPE_QK_NORM_ROPE_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct QkNormRope {
  static constexpr std::string_view kName = "qk_norm_rope";
  struct Args {
    ConstTensor x, q_weight, k_weight, table;
    Tensor y;
    int64_t num_q_heads = 0;
    float eps = 1e-6f;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<QkNormRope>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_QK_NORM_ROPE_QK_NORM_ROPE_H_
