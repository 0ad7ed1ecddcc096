#ifndef VLR_KERNELS_LINEAR_WEIGHT_ONLY_IMPLS_H_
#define VLR_KERNELS_LINEAR_WEIGHT_ONLY_IMPLS_H_

#include "kernels/linear_weight_only/linear_weight_only.h"

namespace vlr::ops {

Status linear_weight_only_reference(const LinearWeightOnly::Args&, Context&);
Status linear_weight_only_blocked(const LinearWeightOnly::Args&, Context&);
int64_t linear_weight_only_blocked_workspace(const LinearWeightOnly::Args&, const Context&);
#if VLR_WITH_CUDA
/// Decodes into ctx.ring (without one, into its workspace), then `linear`.
Status linear_weight_only_dequantize(const LinearWeightOnly::Args&, Context&);
int64_t linear_weight_only_dequantize_workspace(const LinearWeightOnly::Args&, const Context&);
/// Decodes on the way to the tensor cores. Its workspace is that of the one above, which runs where
/// planning could not know that this one will not.
Status linear_weight_only_fused_mma(const LinearWeightOnly::Args&, Context&);
/// nf4, 16-bit x, no bias, no activation, shapes that the kernel takes at multiples of 16 bytes, so
/// few rows that it is the faster one; and ctx.ring does not say that its bits differ on this device.
bool linear_weight_only_fused_mma_supports(const LinearWeightOnly::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_WEIGHT_ONLY_IMPLS_H_
