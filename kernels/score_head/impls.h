#ifndef VLR_KERNELS_SCORE_HEAD_IMPLS_H_
#define VLR_KERNELS_SCORE_HEAD_IMPLS_H_

#include "kernels/score_head/score_head.h"

namespace vlr::ops {

Status score_head_reference(const ScoreHead::Args&, Context&);
Status score_head_block_per_row(const ScoreHead::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_SCORE_HEAD_IMPLS_H_
