#include "kernels/add/impls.h"
#include "kernels/core/load.h"
#include "kernels/core/rows.h"

namespace vlr::ops {

Status add_reference(const Add::Args& args, Context&) {
  for (int64_t r = 0; r < args.y.dim(0); ++r) {
    const ConstTensor a = row_of(args.a, r), b = row_of(args.b, r);
    const Tensor y = row_of(args.y, r);
    for (int64_t i = 0; i < y.dim(0); ++i) store_f32(y, i, load_f32(a, i) + load_f32(b, i));
  }
  return {};
}

}  // namespace vlr::ops
