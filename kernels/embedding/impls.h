#ifndef VLR_KERNELS_EMBEDDING_IMPLS_H_
#define VLR_KERNELS_EMBEDDING_IMPLS_H_

#include "kernels/embedding/embedding.h"

namespace vlr::ops {

Status embedding_reference(const Embedding::Args&, Context&);
Status embedding_vector(const Embedding::Args&, Context&);  // CUDA

}  // namespace vlr::ops

#endif  // VLR_KERNELS_EMBEDDING_IMPLS_H_
