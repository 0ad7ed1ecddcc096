/// The MLP's gate whose result is wanted in 8 bits alone: swiglu, then quantize_rows, in one pass.
///   q, scale = quantize_rows(swiglu(gate, up))
///
///   gate, up  [T, F]  f32 | bf16 | f16, both the same; rows may be strided
///   q         [T, F]  i8 | f8e4m3; contiguous
///   scale     [T]     f32, contiguous
///
/// T == 0 does nothing; F >= 1.
/// Rounding: swiglu's result is rounded to the dtype of gate before it is quantised, as the two ops
/// one after the other do: kernels/swiglu/swiglu.h, kernels/quantize_rows/quantize_rows.h.
#ifndef VLR_KERNELS_SWIGLU_QUANTIZE_SWIGLU_QUANTIZE_H_
#define VLR_KERNELS_SWIGLU_QUANTIZE_SWIGLU_QUANTIZE_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct SwiGluQuantize {
  static constexpr std::string_view kName = "swiglu_quantize";
  struct Args {
    ConstTensor gate, up;
    Tensor q, scale;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<SwiGluQuantize>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_SWIGLU_QUANTIZE_SWIGLU_QUANTIZE_H_
