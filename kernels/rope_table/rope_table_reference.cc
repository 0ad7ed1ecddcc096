#include <cmath>

#include "kernels/rope_table/impls.h"

namespace vlr::ops {

Status rope_table_reference(const RopeTable::Args& a, Context&) {
  const int64_t pairs = a.axis.dim(0), tokens = a.positions.dim(1);
  for (int64_t t = 0; t < tokens; ++t) {
    float* cosine = a.table.row<float>(t);
    float* sine = cosine + pairs;
    for (int64_t j = 0; j < pairs; ++j) {
      const auto position =
          static_cast<float>(a.positions.row<int32_t>(a.axis.as<int32_t>()[j])[t]);
      const float angle = position * a.inv_freq.as<float>()[j];
      cosine[j] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sine[j] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return {};
}

}  // namespace vlr::ops
