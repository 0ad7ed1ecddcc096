#ifndef VLR_KERNELS_LAYERNORM_IMPLS_H_
#define VLR_KERNELS_LAYERNORM_IMPLS_H_

#include "kernels/layernorm/layernorm.h"

namespace vlr::ops {

Status layernorm_reference(const LayerNorm::Args&, Context&);
Status layernorm_in_registers(const LayerNorm::Args&, Context&);  // CUDA
bool layernorm_fits_registers(const LayerNorm::Args&, const Context&);
Status layernorm_warp_per_row(const LayerNorm::Args&, Context&);  // CUDA
Status layernorm_simd(const LayerNorm::Args&, Context&);
int64_t layernorm_simd_workspace(const LayerNorm::Args&, const Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LAYERNORM_IMPLS_H_
