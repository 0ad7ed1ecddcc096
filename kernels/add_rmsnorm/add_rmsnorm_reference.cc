#include "kernels/add/impls.h"
#include "kernels/add_rmsnorm/impls.h"
#include "kernels/rmsnorm/impls.h"

namespace vlr::ops {

Status add_rmsnorm_reference(const AddRmsNorm::Args& args, Context& ctx) {
  VLR_RETURN_IF_ERROR(add_reference(add_part(args), ctx));
  return rmsnorm_reference(rmsnorm_part(args), ctx);
}

}  // namespace vlr::ops
