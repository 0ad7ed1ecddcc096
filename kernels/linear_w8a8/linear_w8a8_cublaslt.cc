// linear_w8a8/cublaslt: the product, both vectors of scales and the residual in one call of
// cuBLASLt, then bias and activation in place. cublaslt_scalar, for devices and versions whose fp8
// products take no vectors: cuBLASLt for the sums alone. Which algorithms: kernels/cuda/blas.h.
#include <algorithm>

#include "kernels/core/scratch.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"
#include "kernels/linear_w8a8/impls.h"
#include "kernels/linear_w8a8/pieces.h"

namespace vlr::ops {
namespace {

constexpr int64_t kAlign = 256;  // of the library's scratch

bool is_16_byte(const ConstTensor& t) {
  return !t.defined() || reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

int64_t library_bytes(const Context& ctx) {
  // Planning has no library at hand: what the exact mode wants.
  return ctx.blas ? ctx.blas->workspace_bytes() : (int64_t{4} << 20) + kAlign;
}

/// Shapes decide who runs a problem, so that its bits stay the same; pointers may not.
Status expect_16_byte(const LinearW8A8::Args& a) {
  if (is_16_byte(a.x) && is_16_byte(a.w) && is_16_byte(a.residual) && is_16_byte(a.y)) return {};
  return invalid(LinearW8A8::kName, "cublaslt wants operands at multiples of 16 bytes");
}

/// Codes alone: x w^T -> y.
cuda::Product product_of(const LinearW8A8::Args& a, const Tensor& y) {
  return {.m = a.x.dim(0),
          .n = a.w.dim(0),
          .k = a.x.dim(1),
          .dtype = y.dtype,
          .x = a.x.data,
          .w = a.w.data,
          .bias = nullptr,
          .residual = nullptr,
          .y = y.data,
          .x_stride = a.x.dim(1),
          .residual_stride = 0,
          .y_stride = y.stride(0),
          .gelu = false,
          .fp8 = true};
}

cuda::Product scaled_product(const LinearW8A8::Args& a) {
  cuda::Product p = product_of(a, a.y);
  p.residual = a.residual.data;
  p.residual_stride = a.residual.stride(0);
  p.x_scale = a.x_scale.as<float>();
  p.w_scale = a.w_scale.as<float>();
  return p;
}

struct ScaledParts {
  std::byte *x_scale, *library;
};
ScaledParts lay_out_scaled(Scratch& scratch, const LinearW8A8::Args& a, const Context& ctx) {
  ScaledParts p;
  p.x_scale = scratch.take<std::byte>(a.x_scale.bytes());
  p.library = scratch.take<std::byte>(library_bytes(ctx));
  return p;
}

/// What the library asks for: rows of x, w, y and residual are multiples of 16 bytes long and apart.
bool has_16_byte_rows(const LinearW8A8::Args& a) {
  return a.x.dtype == DType::kF8E4M3 && dtype_bytes(a.y.dtype) == 2 && a.w.dim(0) % 16 == 0 &&
         a.w.dim(1) % 16 == 0 && a.y.stride(0) % 8 == 0 &&
         (!a.residual.defined() || a.residual.stride(0) % 8 == 0);
}

/// Without a library, as in planning, nobody knows what it will have; nobody runs without one.
bool may_have_library(const LinearW8A8::Args& a, const Context& ctx) {
  return ctx.blas || !a.x.data || a.x.dim(0) == 0;
}

/// False: cuBLASLt has no such product.
Result<bool> run_scaled(const LinearW8A8::Args& a, Context& ctx) {
  cuda::Product p = scaled_product(a);
  Scratch scratch(ctx.workspace);
  const ScaledParts parts = lay_out_scaled(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("linear_w8a8/cublaslt"));
  if (!is_16_byte(a.x_scale)) {  // some rows of a larger batch: cuBLASLt refuses where they begin
    VLR_CUDA_TRY(cudaMemcpyAsync(parts.x_scale, p.x_scale, static_cast<size_t>(a.x_scale.bytes()),
                                 cudaMemcpyDefault, ctx.stream));
    p.x_scale = reinterpret_cast<const float*>(parts.x_scale);
  }
  const std::span<std::byte> library(parts.library, static_cast<size_t>(library_bytes(ctx)));
  VLR_ASSIGN_OR_RETURN(const bool done, ctx.blas->run(p, library, ctx.stream));
  if (!done) return false;
  if (a.bias.defined() || a.activation != Activation::kNone) {
    LinearW8A8::Args rest = a;
    rest.residual = {};
    VLR_RETURN_IF_ERROR(finish_sums(rest, a.y, true, ctx));
  }
  return true;
}

struct ScalarParts {
  std::byte *sums, *library;
};
ScalarParts lay_out(Scratch& scratch, const LinearW8A8::Args& a, const Context& ctx) {
  const auto [rows, columns] = piece_shape(a);
  ScalarParts p;
  p.sums = scratch.take<std::byte>(rows * columns * dtype_bytes(a.y.dtype));
  p.library = scratch.take<std::byte>(library_bytes(ctx));
  return p;
}

/// False: cuBLASLt has no such product.
Result<bool> run_scalar(const LinearW8A8::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  const ScalarParts parts = lay_out(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("linear_w8a8/cublaslt_scalar"));
  const std::span<std::byte> library(parts.library, static_cast<size_t>(library_bytes(ctx)));
  return in_pieces(a, parts.sums, ctx,
                   [&](const LinearW8A8::Args& piece, const Tensor& sums) -> Result<bool> {
                     cuda::Product p = product_of(piece, sums);
                     p.alpha = kSumScale;
                     return ctx.blas->run(p, library, ctx.stream);
                   });
}

}  // namespace

bool linear_w8a8_cublaslt_scalar_supports(const LinearW8A8::Args& a, const Context& ctx) {
  if (!has_16_byte_rows(a) || !may_have_library(a, ctx)) return false;
  if (!ctx.blas || a.x.dim(0) == 0) return true;
  // Pieces of y are as wide as the first one, but for the last, which is what is left.
  const int64_t columns = piece_shape(a).columns;
  for (const int64_t width : {columns, a.w.dim(0) % columns}) {
    if (width == 0) continue;
    LinearW8A8::Args piece = a;
    piece.w = a.w.slice(0, 0, width);
    cuda::Product p =
        product_of(piece, Tensor(nullptr, a.y.dtype, {piece_shape(a).rows, width}, a.y.device));
    p.alpha = kSumScale;
    if (!ctx.blas->expects(p)) return false;
  }
  return true;
}

int64_t linear_w8a8_cublaslt_scalar_workspace(const LinearW8A8::Args& a, const Context& ctx) {
  // Measuring may still find that the library has no such product: then the next one runs.
  Scratch count;
  lay_out(count, a, ctx);
  return std::max(count.used(), linear_w8a8_widen_workspace(a, ctx));
}

Status linear_w8a8_cublaslt_scalar(const LinearW8A8::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  VLR_RETURN_IF_ERROR(expect_16_byte(a));
  const Status unsupported_here = unsupported(LinearW8A8::kName, "cublaslt_scalar", Device::kCuda);
  if (!ctx.blas) return unsupported_here;
  VLR_ASSIGN_OR_RETURN(const bool done, run_scalar(a, ctx));
  return done ? Status() : unsupported_here;
}

bool linear_w8a8_cublaslt_supports(const LinearW8A8::Args& a, const Context& ctx) {
  if (!has_16_byte_rows(a) || !may_have_library(a, ctx)) return false;
  if (!ctx.blas || a.x.dim(0) == 0) return true;
  alignas(16) static constexpr float kSomeScale = 1;  // operands may have no data yet
  cuda::Product p = scaled_product(a);
  p.x_scale = p.w_scale = &kSomeScale;
  return ctx.blas->expects(p);
}

int64_t linear_w8a8_cublaslt_workspace(const LinearW8A8::Args& a, const Context& ctx) {
  Scratch count;
  lay_out_scaled(count, a, ctx);
  // Without a library at hand any of the three may run.
  if (ctx.blas) return count.used();
  return std::max(count.used(), linear_w8a8_cublaslt_scalar_workspace(a, ctx));
}

Status linear_w8a8_cublaslt(const LinearW8A8::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  VLR_RETURN_IF_ERROR(expect_16_byte(a));
  const Status unsupported_here = unsupported(LinearW8A8::kName, "cublaslt", Device::kCuda);
  if (!ctx.blas) return unsupported_here;
  VLR_ASSIGN_OR_RETURN(const bool done, run_scaled(a, ctx));
  return done ? Status() : unsupported_here;
}

}  // namespace vlr::ops
