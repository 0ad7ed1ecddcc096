#ifndef VLR_KERNELS_ATTENTION_IMPLS_H_
#define VLR_KERNELS_ATTENTION_IMPLS_H_

#include "kernels/attention/attention.h"

namespace vlr::ops {

Status attention_reference(const Attention::Args&, Context&);
Status attention_flash_wgmma(const Attention::Args&, Context&);  // CUDA
Status attention_flash_mma(const Attention::Args&, Context&);    // CUDA
Status attention_blocked(const Attention::Args&, Context&);
int64_t attention_blocked_workspace(const Attention::Args&, const Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ATTENTION_IMPLS_H_
