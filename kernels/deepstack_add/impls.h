#ifndef VLR_KERNELS_DEEPSTACK_ADD_IMPLS_H_
#define VLR_KERNELS_DEEPSTACK_ADD_IMPLS_H_

#include "kernels/deepstack_add/deepstack_add.h"

namespace vlr::ops {

Status deepstack_add_reference(const DeepstackAdd::Args&, Context&);
Status deepstack_add_vector(const DeepstackAdd::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_DEEPSTACK_ADD_IMPLS_H_
