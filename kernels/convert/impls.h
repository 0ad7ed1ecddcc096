#ifndef VLR_KERNELS_CONVERT_IMPLS_H_
#define VLR_KERNELS_CONVERT_IMPLS_H_

#include "kernels/convert/convert.h"

namespace vlr::ops {

Status convert_reference(const Convert::Args&, Context&);
Status convert_vector(const Convert::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_CONVERT_IMPLS_H_
