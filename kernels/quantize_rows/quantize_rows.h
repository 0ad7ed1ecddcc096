/// Activations in 8 bits, with a scale a row (a token).
///   absmax[m] = max_k |x[m, k]|     scale[m] = absmax[m] / largest     largest: 127 or 448
///   q[m, k] = round(x[m, k] * (largest / absmax[m])), or 0 where absmax[m] < 2^-100
///
/// With `outliers` (LLM.int8()), values that stand out are set apart in full precision: they count
/// for no absmax, their q is 0, and outliers[m, k] is x[m, k] there and 0 elsewhere. A value stands
/// out if |x[m, k]| >= threshold; with `by_column`, if any value of its column, in any row of the
/// call, does. The latter is what bitsandbytes does; a row's result then depends on its neighbours.
///
///   x         [M, K]  f32 | bf16 | f16; rows may be strided
///   q         [M, K]  i8 | f8e4m3; contiguous
///   scale     [M]     f32, contiguous
///   outliers  [M, K]  dtype of x; contiguous; optional; then threshold > 0
///
/// M == 0 does nothing; K >= 1.
/// Rounding: f32 throughout; quotients and products rounded to nearest; codes to nearest even and
/// saturated. Exact: every implementation gives the same bits. A NaN or an infinity in a row makes
/// its scale NaN or infinite; the codes are then anything.
#ifndef VLR_KERNELS_QUANTIZE_ROWS_QUANTIZE_ROWS_H_
#define VLR_KERNELS_QUANTIZE_ROWS_QUANTIZE_ROWS_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct QuantizeRows {
  static constexpr std::string_view kName = "quantize_rows";
  struct Args {
    ConstTensor x;
    Tensor q, scale, outliers = {};
    float threshold = 0;
    bool by_column = false;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<QuantizeRows>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_QUANTIZE_ROWS_QUANTIZE_ROWS_H_
