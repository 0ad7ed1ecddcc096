#ifndef VLR_KERNELS_SWIGLU_IMPLS_H_
#define VLR_KERNELS_SWIGLU_IMPLS_H_

#include "kernels/swiglu/swiglu.h"

namespace vlr::ops {

Status swiglu_reference(const SwiGlu::Args&, Context&);
Status swiglu_vector(const SwiGlu::Args&, Context&);  // CUDA
Status swiglu_simd(const SwiGlu::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_SWIGLU_IMPLS_H_
