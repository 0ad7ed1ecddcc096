#include <fmt/format.h>

#include <algorithm>

#include "kernels/core/load.h"
#include "kernels/embedding/impls.h"

namespace vlr::ops {

Status embedding_reference(const Embedding::Args& a, Context&) {
  const int64_t width = a.table.dim(1), vocab = a.table.dim(0);
  const int64_t visual_rows = a.visual.defined() ? a.visual.dim(0) : 0;
  for (int64_t t = 0; t < a.ids.dim(0); ++t) {
    float* y = a.y.row<float>(t);
    const int32_t visual = a.visual_row.as<int32_t>()[t];
    if (visual >= visual_rows) {
      return invalid(Embedding::kName,
                     fmt::format("visual_row[{}] = {} of {} rows", t, visual, visual_rows));
    }
    if (visual >= 0) {
      std::copy_n(a.visual.row<float>(visual), width, y);
      continue;
    }
    const int32_t id = a.ids.as<int32_t>()[t];
    if (id < 0 || id >= vocab)
      return invalid(Embedding::kName, fmt::format("ids[{}] = {} of {} rows", t, id, vocab));
    for (int64_t i = 0; i < width; ++i) y[i] = load_f32(a.table, id * width + i);
  }
  return {};
}

}  // namespace vlr::ops
