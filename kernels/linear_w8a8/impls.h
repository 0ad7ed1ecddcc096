#ifndef VLR_KERNELS_LINEAR_W8A8_IMPLS_H_
#define VLR_KERNELS_LINEAR_W8A8_IMPLS_H_

#include "kernels/linear_w8a8/linear_w8a8.h"

namespace vlr::ops {

Status linear_w8a8_reference(const LinearW8A8::Args&, Context&);
Status linear_w8a8_blocked(const LinearW8A8::Args&, Context&);
int64_t linear_w8a8_blocked_workspace(const LinearW8A8::Args&, const Context&);
#if VLR_WITH_CUDA
/// i8 -> 16 bits: s8 tensor cores through mma.sync, exact sums, everything else in the epilogue.
Status linear_w8a8_mma_s8(const LinearW8A8::Args&, Context&);
/// f8e4m3 -> 16 bits, rows of whole 16 bytes, where ctx.blas has an algorithm: cuBLASLt with the
/// scales as vectors.
Status linear_w8a8_cublaslt(const LinearW8A8::Args&, Context&);
bool linear_w8a8_cublaslt_supports(const LinearW8A8::Args&, const Context&);
int64_t linear_w8a8_cublaslt_workspace(const LinearW8A8::Args&, const Context&);
/// The same arguments, where ctx.blas has an algorithm for the codes alone: cuBLASLt for the sums in
/// scratch, then the scales.
Status linear_w8a8_cublaslt_scalar(const LinearW8A8::Args&, Context&);
bool linear_w8a8_cublaslt_scalar_supports(const LinearW8A8::Args&, const Context&);
int64_t linear_w8a8_cublaslt_scalar_workspace(const LinearW8A8::Args&, const Context&);
/// f8e4m3 -> 16 bits, any device: both operands as 16-bit numbers in scratch, `linear`, then the
/// scales. Not for i8, whose sums are to be exact.
Status linear_w8a8_widen(const LinearW8A8::Args&, Context&);
int64_t linear_w8a8_widen_workspace(const LinearW8A8::Args&, const Context&);
#endif

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_W8A8_IMPLS_H_
