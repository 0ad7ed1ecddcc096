/// DeepStack: adds a level of vision features to the rows of their tokens.
///   y[t] = x[t] + features[visual_row[t]]   where visual_row[t] >= 0, otherwise x[t]
///
///   x           [T, C]  f32 | bf16 | f16; rows may be strided
///   visual_row  [T]     i32, a row of features, or -1 for text
///   features    [N, C]  dtype of x; rows may be strided
///   y           [T, C]  dtype of x; rows may be strided; may be x itself (text rows are then not
///                       touched), otherwise must not overlap it
///
/// A visual_row of N or more is refused on the CPU, and not looked for on a device.
/// Rounding: the sum in f32, then to the dtype of y.
/// Source: Meng et al. 2024 (DeepStack); Qwen3VLTextModel._deepstack_process.
#ifndef VLR_KERNELS_DEEPSTACK_ADD_DEEPSTACK_ADD_H_
#define VLR_KERNELS_DEEPSTACK_ADD_DEEPSTACK_ADD_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct DeepstackAdd {
  static constexpr std::string_view kName = "deepstack_add";
  struct Args {
    ConstTensor x, visual_row, features;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<DeepstackAdd>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_DEEPSTACK_ADD_DEEPSTACK_ADD_H_
