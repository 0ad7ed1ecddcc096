// add_rmsnorm/parts: add, then rmsnorm, each by its first implementation: for f32, and for rows of
// any length.
#include "kernels/add_rmsnorm/impls.h"

namespace vlr::ops {

Status add_rmsnorm_parts(const AddRmsNorm::Args& args, Context& ctx) {
  VLR_RETURN_IF_ERROR(run<Add>(add_part(args), ctx));
  return run<RmsNorm>(rmsnorm_part(args), ctx);
}

}  // namespace vlr::ops
