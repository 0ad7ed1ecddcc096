#ifndef VLR_KERNELS_RMSNORM_IMPLS_H_
#define VLR_KERNELS_RMSNORM_IMPLS_H_

#include "kernels/rmsnorm/rmsnorm.h"

namespace vlr::ops {

Status rmsnorm_reference(const RmsNorm::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_RMSNORM_IMPLS_H_
