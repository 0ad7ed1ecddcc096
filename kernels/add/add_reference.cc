#include "kernels/add/impls.h"

namespace vlr::ops {

Status add_reference(const Add::Args& args, Context&) {
  for (int64_t r = 0; r < args.y.dim(0); ++r) {
    const float* a = args.a.row<float>(r);
    const float* b = args.b.row<float>(r);
    float* y = args.y.row<float>(r);
    for (int64_t i = 0; i < args.y.dim(1); ++i) y[i] = a[i] + b[i];
  }
  return {};
}

}  // namespace vlr::ops
