/// Token embedding, with the rows of images and videos put in their places.
///   y[t] = visual_row[t] < 0 ? table[ids[t]] : visual[visual_row[t]]
///
///   ids         [T]      i32, each in [0, V); not read where visual_row[t] >= 0
///   visual_row  [T]      i32, a row of visual, or -1 for text
///   table       [V, C]   dtype of y, or with f32 y also bf16 | f16; contiguous
///   visual      [N, C]   dtype of y; rows may be strided; optional when no visual_row is >= 0
///   y           [T, C]   f32 | bf16 | f16; rows may be strided
///
/// Indices out of range are refused on the CPU, and not looked for on a device.
/// Exact: values are copied (widened).
#ifndef VLR_KERNELS_EMBEDDING_EMBEDDING_H_
#define VLR_KERNELS_EMBEDDING_EMBEDDING_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct Embedding {
  static constexpr std::string_view kName = "embedding";
  struct Args {
    ConstTensor ids, visual_row, table, visual;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<Embedding>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_EMBEDDING_EMBEDDING_H_
