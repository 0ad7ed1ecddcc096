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
Status linear_cublaslt(const Linear::Args&, Context&);
/// 16 bits, every row of every matrix a multiple of 16 bytes long and apart, as the library's fast
/// kernels ask; and ctx.blas has an algorithm for the problem.
bool linear_cublaslt_supports(const Linear::Args&, const Context&);
int64_t linear_cublaslt_workspace(const Linear::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_IMPLS_H_
