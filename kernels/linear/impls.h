#ifndef VLR_KERNELS_LINEAR_IMPLS_H_
#define VLR_KERNELS_LINEAR_IMPLS_H_

#include "kernels/linear/linear.h"

namespace vlr::ops {

Status linear_reference(const Linear::Args&, Context&);
Status linear_blocked(const Linear::Args&, Context&);
int64_t linear_blocked_workspace(const Linear::Args&, const Context&);
#if VLR_WITH_OPENBLAS
Status linear_openblas(const Linear::Args&, Context&);
int64_t linear_openblas_workspace(const Linear::Args&, const Context&);
#endif
#if VLR_WITH_CUDA
Status linear_mma(const Linear::Args&, Context&);
/// Runs linear_mma where ctx.blas has no algorithm for the problem, or where there is no ctx.blas.
Status linear_cublaslt(const Linear::Args&, Context&);
int64_t linear_cublaslt_workspace(const Linear::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_IMPLS_H_
