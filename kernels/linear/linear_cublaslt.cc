// linear/cublaslt: the product, bias, activation and residual in one call of cuBLASLt. Which of its
// algorithms, and why that keeps a row's bits, is in kernels/cuda/blas.h.
#include "kernels/cuda/blas.h"
#include "kernels/linear/impls.h"

namespace vlr::ops {
namespace {

bool is_16_byte(const ConstTensor& t) {
  return !t.defined() || reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

cuda::Product product_of(const Linear::Args& a) {
  return {.m = a.x.dim(0),
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
}

}  // namespace

bool linear_cublaslt_supports(const Linear::Args& a, const Context& ctx) {
  const bool rows = dtype_bytes(a.x.dtype) == 2 && a.w.dim(0) % 8 == 0 && a.w.dim(1) % 8 == 0 &&
                    a.x.stride(0) % 8 == 0 && a.y.stride(0) % 8 == 0 &&
                    (!a.residual.defined() || a.residual.stride(0) % 8 == 0);
  // Planning: the library is asked about problems in the order in which they are run.
  if (!rows || !a.x.data || !a.w.data || !a.y.data || a.x.dim(0) == 0) return rows;
  return ctx.blas && ctx.blas->expects(product_of(a));
}

int64_t linear_cublaslt_workspace(const Linear::Args&, const Context& ctx) {
  // Planning has no library at hand: what the exact mode wants.
  return ctx.blas ? ctx.blas->workspace_bytes() : (int64_t{4} << 20) + 256;
}

Status linear_cublaslt(const Linear::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  // Shapes decide who runs a problem, so that its bits stay the same; pointers may not.
  if (!is_16_byte(a.x) || !is_16_byte(a.w) || !is_16_byte(a.bias) || !is_16_byte(a.residual) ||
      !is_16_byte(a.y))
    return invalid(Linear::kName, "cublaslt wants operands at multiples of 16 bytes");
  if (!ctx.blas) return unsupported(Linear::kName, "cublaslt", Device::kCuda);
  VLR_ASSIGN_OR_RETURN(const bool done, ctx.blas->run(product_of(a), ctx.workspace, ctx.stream));
  return done ? Status() : unsupported(Linear::kName, "cublaslt", Device::kCuda);
}

}  // namespace vlr::ops
