/// Picks rows: the final token of every sequence.
///   y[b] = x[rows[b]]
///
///   x     [T, C]  f32 | bf16 | f16; rows may be strided
///   rows  [B]     i32, each in [0, T)
///   y     [B, C]  dtype of x; rows may be strided; must not overlap x
///
/// Indices out of range are refused on the CPU, and not looked for on a device.
#ifndef VLR_KERNELS_GATHER_ROWS_GATHER_ROWS_H_
#define VLR_KERNELS_GATHER_ROWS_GATHER_ROWS_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct GatherRows {
  static constexpr std::string_view kName = "gather_rows";
  struct Args {
    ConstTensor x, rows;
    Tensor y;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<GatherRows>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_GATHER_ROWS_GATHER_ROWS_H_
