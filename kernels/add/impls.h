#ifndef VLR_KERNELS_ADD_IMPLS_H_
#define VLR_KERNELS_ADD_IMPLS_H_

#include "kernels/add/add.h"

namespace vlr::ops {

Status add_reference(const Add::Args&, Context&);
Status add_vector(const Add::Args&, Context&);  // CUDA
Status add_simd(const Add::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ADD_IMPLS_H_
