/// GELU, in the two forms of the vision tower.
///   kTanh:  y = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))   blocks ("gelu_pytorch_tanh")
///   kErf:   y = 0.5 x (1 + erf(x / sqrt(2)))                        mergers
///
///   x, y  [rows, dim]  f32 | bf16 | f16, both the same; rows may be strided; y may be x itself,
///                      otherwise must not overlap it
///
/// Rounding: computed in f32 or wider, one rounding to the dtype of y.
/// Source: Hendrycks & Gimpel 2016.
#ifndef VLR_KERNELS_GELU_GELU_H_
#define VLR_KERNELS_GELU_GELU_H_

#include "kernels/core/op.h"

namespace vlr::ops {

enum class GeluKind { kTanh, kErf };

struct Gelu {
  static constexpr std::string_view kName = "gelu";
  struct Args {
    ConstTensor x;
    Tensor y;
    GeluKind kind = GeluKind::kTanh;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Gelu>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_GELU_GELU_H_
