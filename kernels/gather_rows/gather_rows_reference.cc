#include <fmt/format.h>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/gather_rows/impls.h"

namespace vlr::ops {

Status gather_rows_reference(const GatherRows::Args& a, Context&) {
  for (int64_t b = 0; b < a.rows.dim(0); ++b) {
    const int32_t row = a.rows.as<int32_t>()[b];
    if (row < 0 || row >= a.x.dim(0)) {
      return invalid(GatherRows::kName, fmt::format("rows[{}] = {} of {}", b, row, a.x.dim(0)));
    }
    const ConstTensor x = row_of(a.x, row);
    const Tensor y = row_of(a.y, b);
    for (int64_t i = 0; i < y.dim(0); ++i) store_f32(y, i, load_f32(x, i));
  }
  return {};
}

}  // namespace vlr::ops
