#ifndef VLR_KERNELS_SWIGLU_QUANTIZE_IMPLS_H_
#define VLR_KERNELS_SWIGLU_QUANTIZE_IMPLS_H_

#include "kernels/swiglu_quantize/swiglu_quantize.h"

namespace vlr::ops {

Status swiglu_quantize_reference(const SwiGluQuantize::Args&, Context&);
/// swiglu into scratch, then quantize_rows, each by its first implementation, on either device.
Status swiglu_quantize_parts(const SwiGluQuantize::Args&, Context&);
int64_t swiglu_quantize_parts_workspace(const SwiGluQuantize::Args&, const Context&);
#if VLR_WITH_CUDA
Status swiglu_quantize_block_per_row(const SwiGluQuantize::Args&, Context&);
bool swiglu_quantize_fits_block(const SwiGluQuantize::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_SWIGLU_QUANTIZE_IMPLS_H_
