#ifndef VLR_KERNELS_RMSNORM_IMPLS_H_
#define VLR_KERNELS_RMSNORM_IMPLS_H_

#include "kernels/rmsnorm/rmsnorm.h"

namespace vlr::ops {

Status rmsnorm_reference(const RmsNorm::Args&, Context&);
Status rmsnorm_in_registers(const RmsNorm::Args&, Context&);  // CUDA
bool rmsnorm_fits_registers(const RmsNorm::Args&, const Context&);
Status rmsnorm_warp_per_row(const RmsNorm::Args&, Context&);  // CUDA
Status rmsnorm_simd(const RmsNorm::Args&, Context&);
int64_t rmsnorm_simd_workspace(const RmsNorm::Args&, const Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_RMSNORM_IMPLS_H_
