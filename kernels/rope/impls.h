#ifndef VLR_KERNELS_ROPE_IMPLS_H_
#define VLR_KERNELS_ROPE_IMPLS_H_

#include "kernels/rope/rope.h"

namespace vlr::ops {

Status rope_reference(const Rope::Args&, Context&);
Status rope_shuffle(const Rope::Args&, Context&);  // CUDA
bool rope_in_shuffles(const Rope::Args&, const Context&);
Status rope_pairs(const Rope::Args&, Context&);  // CUDA
Status rope_simd(const Rope::Args&, Context&);

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ROPE_IMPLS_H_
