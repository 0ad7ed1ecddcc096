/// Patch embedding: the vision tower's convolution with kernel = stride, as a linear map of
/// normalised pixels.
///   y[p, n] = sum_k ((x[p, k] - 127.5) / 127.5) * w[n, k] + bias[n]
///
///   x     [P, K]  u8, contiguous; a patch is channel x time x row x column = 3 x 2 x 16 x 16
///   w     [N, K]  dtype of y, or with f32 y also bf16 | f16; contiguous
///   bias  [N]     dtype of w; optional
///   y     [P, N]  f32 | bf16 | f16; rows may be strided
///
/// Rounding: the pixel is rounded to f32 after the subtraction and after the division, then to the
/// dtype of y; from there as linear.
#ifndef VLR_KERNELS_PATCH_EMBED_PATCH_EMBED_H_
#define VLR_KERNELS_PATCH_EMBED_PATCH_EMBED_H_

#include "kernels/core/op.h"

namespace vlr::ops {

/// A pixel as the tower sees it: in [-1, 1].
inline float normalize_pixel(uint8_t v) { return (static_cast<float>(v) - 127.5f) / 127.5f; }

struct PatchEmbed {
  static constexpr std::string_view kName = "patch_embed";
  struct Args {
    ConstTensor x, w, bias;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<PatchEmbed>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_PATCH_EMBED_PATCH_EMBED_H_
