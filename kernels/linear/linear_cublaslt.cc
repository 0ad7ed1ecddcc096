// linear/cublaslt: the product, bias, activation and residual in one call of cuBLASLt. Which of its
// algorithms, and why that keeps a row's bits, is in kernels/cuda/blas.h.
#include "kernels/cuda/blas.h"
#include "kernels/linear/impls.h"

namespace vlr::ops {
namespace {

bool is_16_byte(const ConstTensor& t) {
  return !t.defined() || reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

}  // namespace

int64_t linear_cublaslt_workspace(const Linear::Args&, const Context& ctx) {
  // Planning has no library at hand: what the exact mode wants.
  return ctx.blas ? ctx.blas->workspace_bytes() : (int64_t{4} << 20) + 256;
}

Status linear_cublaslt(const Linear::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  if (!ctx.blas) return linear_mma(a, ctx);
  // Shapes decide who runs a problem, so that its bits stay the same; pointers may not.
  if (!is_16_byte(a.x) || !is_16_byte(a.w) || !is_16_byte(a.bias) || !is_16_byte(a.residual) ||
      !is_16_byte(a.y))
    return invalid(Linear::kName, "cublaslt wants operands at multiples of 16 bytes");
  const cuda::Product p{.m = a.x.dim(0),
                        .n = a.w.dim(0),
                        .k = a.x.dim(1),
                        .dtype = a.x.dtype,
                        .x = a.x.data,
                        .w = a.w.data,
                        .bias = a.bias.data,
                        .residual = a.residual.data,
                        .y = a.y.data,
                        .x_stride = a.x.stride(0),
                        .residual_stride = a.residual.stride(0),
                        .y_stride = a.y.stride(0),
                        .gelu = a.activation == Activation::kGeluTanh};
  VLR_ASSIGN_OR_RETURN(const bool done, ctx.blas->run(p, ctx.workspace, ctx.stream));
  return done ? Status() : linear_mma(a, ctx);
}

}  // namespace vlr::ops
