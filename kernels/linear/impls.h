#ifndef VLR_KERNELS_LINEAR_IMPLS_H_
#define VLR_KERNELS_LINEAR_IMPLS_H_

#include "kernels/linear/linear.h"

namespace vlr::ops {

Status linear_reference(const Linear::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_IMPLS_H_
