#ifndef VLR_KERNELS_LAYERNORM_IMPLS_H_
#define VLR_KERNELS_LAYERNORM_IMPLS_H_

#include "kernels/layernorm/layernorm.h"

namespace vlr::ops {

Status layernorm_reference(const LayerNorm::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LAYERNORM_IMPLS_H_
