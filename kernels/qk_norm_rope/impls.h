#ifndef VLR_KERNELS_QK_NORM_ROPE_IMPLS_H_
#define VLR_KERNELS_QK_NORM_ROPE_IMPLS_H_

#include "kernels/qk_norm_rope/qk_norm_rope.h"

namespace vlr::ops {

Status qk_norm_rope_reference(const QkNormRope::Args&, Context&);
Status qk_norm_rope_half_split(const QkNormRope::Args&, Context&);  // CUDA
bool qk_norm_rope_in_half_splits(const QkNormRope::Args&, const Context&);
Status qk_norm_rope_warp_per_head(const QkNormRope::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_QK_NORM_ROPE_IMPLS_H_
