#include <fmt/format.h>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/vision_pos_embed/impls.h"

namespace vlr::ops {

Status vision_pos_embed_reference(const VisionPosEmbed::Args& a, Context&) {
  const int64_t width = a.x.dim(1);
  for (int64_t p = 0; p < a.x.dim(0); ++p) {
    const int32_t* index = a.indices.row<int32_t>(p);
    const float* weight = a.weights.row<float>(p);
    for (int corner = 0; corner < 4; ++corner) {
      if (index[corner] < 0 || index[corner] >= a.table.dim(0)) {
        return invalid(VisionPosEmbed::kName, fmt::format("indices[{}, {}] = {} of {} rows", p,
                                                          corner, index[corner], a.table.dim(0)));
      }
    }
    const ConstTensor x = row_of(a.x, p);
    const Tensor y = row_of(a.y, p);
    for (int64_t i = 0; i < width; ++i) {
      float sum = weight[0] * load_f32(a.table, index[0] * width + i);
      for (int corner = 1; corner < 4; ++corner)
        sum += weight[corner] * load_f32(a.table, index[corner] * width + i);
      store_f32(y, i, load_f32(x, i) + sum);
    }
  }
  return {};
}

}  // namespace vlr::ops
