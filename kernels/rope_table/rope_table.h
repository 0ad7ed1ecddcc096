/// Cosines and sines of rotary position embeddings, for several position axes.
///   angle[t, j] = positions[axis[j], t] * inv_freq[j]
///   table[t, 0, j] = cos(angle)     table[t, 1, j] = sin(angle)
///
///   positions  [A, T]     i32; A = 3 (time, row, column) in the text decoder, 2 (row, column) in
///                         the vision tower
///   axis       [J]        i32, which axis turns pair j, in [0, A); J = head_dim / 2
///   inv_freq   [J]        f32
///   table      [T, 2, J]  f32, contiguous
///
/// Rounding: the position as f32, one f32 product for the angle; cosine and sine of that angle
/// within 2 ulp, with full range reduction (positions reach 10^5 and inv_freq[0] is 1).
/// Source: Su et al. 2021 (RoPE); the interleaved axes are those of Qwen3VLTextRotaryEmbedding.
#ifndef VLR_KERNELS_ROPE_TABLE_ROPE_TABLE_H_
#define VLR_KERNELS_ROPE_TABLE_ROPE_TABLE_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct RopeTable {
  static constexpr std::string_view kName = "rope_table";
  struct Args {
    ConstTensor positions, axis, inv_freq;
    Tensor table;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<RopeTable>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ROPE_TABLE_ROPE_TABLE_H_
