#ifndef VLR_KERNELS_RMSNORM_QUANTIZE_IMPLS_H_
#define VLR_KERNELS_RMSNORM_QUANTIZE_IMPLS_H_

#include "kernels/rmsnorm_quantize/rmsnorm_quantize.h"

namespace vlr::ops {

Status rmsnorm_quantize_reference(const RmsNormQuantize::Args&, Context&);
/// rmsnorm into scratch, then quantize_rows, each by its first implementation, on either device.
Status rmsnorm_quantize_parts(const RmsNormQuantize::Args&, Context&);
int64_t rmsnorm_quantize_parts_workspace(const RmsNormQuantize::Args&, const Context&);
#if VLR_WITH_CUDA
Status rmsnorm_quantize_in_registers(const RmsNormQuantize::Args&, Context&);
bool rmsnorm_quantize_fits_registers(const RmsNormQuantize::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_RMSNORM_QUANTIZE_IMPLS_H_
