#include <fmt/format.h>

#include <algorithm>

#include "kernels/gather_rows/impls.h"

namespace vlr::ops {

Status gather_rows_reference(const GatherRows::Args& a, Context&) {
  for (int64_t b = 0; b < a.rows.dim(0); ++b) {
    const int32_t row = a.rows.as<int32_t>()[b];
    if (row < 0 || row >= a.x.dim(0)) {
      return invalid(GatherRows::kName, fmt::format("rows[{}] = {} of {}", b, row, a.x.dim(0)));
    }
    std::copy_n(a.x.row<float>(row), a.x.dim(1), a.y.row<float>(b));
  }
  return {};
}

}  // namespace vlr::ops
