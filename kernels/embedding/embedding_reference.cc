#include <fmt/format.h>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/embedding/impls.h"

namespace vlr::ops {

Status embedding_reference(const Embedding::Args& a, Context&) {
  const int64_t vocab = a.table.dim(0), visual_rows = a.visual.defined() ? a.visual.dim(0) : 0;
  for (int64_t t = 0; t < a.ids.dim(0); ++t) {
    const int32_t id = a.ids.as<int32_t>()[t], visual = a.visual_row.as<int32_t>()[t];
    if (visual >= visual_rows) {
      return invalid(Embedding::kName,
                     fmt::format("visual_row[{}] = {} of {} rows", t, visual, visual_rows));
    }
    if (visual < 0 && (id < 0 || id >= vocab))
      return invalid(Embedding::kName, fmt::format("ids[{}] = {} of {} rows", t, id, vocab));
    const ConstTensor from = visual >= 0 ? row_of(a.visual, visual) : row_of(a.table, id);
    const Tensor y = row_of(a.y, t);
    for (int64_t i = 0; i < y.dim(0); ++i) store_f32(y, i, load_f32(from, i));
  }
  return {};
}

}  // namespace vlr::ops
