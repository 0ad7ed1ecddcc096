#ifndef VLR_KERNELS_DEQUANTIZE_IMPLS_H_
#define VLR_KERNELS_DEQUANTIZE_IMPLS_H_

#include "kernels/dequantize/dequantize.h"

namespace vlr::ops {

Status dequantize_reference(const Dequantize::Args&, Context&);
Status dequantize_threads(const Dequantize::Args&, Context&);
#if VLR_WITH_CUDA
Status dequantize_vector(const Dequantize::Args&, Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_DEQUANTIZE_IMPLS_H_
