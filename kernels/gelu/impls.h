#ifndef VLR_KERNELS_GELU_IMPLS_H_
#define VLR_KERNELS_GELU_IMPLS_H_

#include "kernels/gelu/gelu.h"

namespace vlr::ops {

Status gelu_reference(const Gelu::Args&, Context&);
Status gelu_vector(const Gelu::Args&, Context&);  // CUDA
Status gelu_simd(const Gelu::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_GELU_IMPLS_H_
