#include "kernels/linear_w8a8/linear_w8a8.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/activation_dtypes.h"
#include "kernels/linear_w8a8/impls.h"

namespace vlr::ops {
namespace {

bool is_f32_without_epilogue(const LinearW8A8::Args& a, const Context&) {
  return a.y.dtype == DType::kF32 && !a.residual.defined() && a.activation == Activation::kNone;
}

#if VLR_WITH_CUDA
bool is_i8_to_16_bit(const LinearW8A8::Args& a, const Context&) {
  return a.x.dtype == DType::kI8 && dtype_bytes(a.y.dtype) == 2;
}
bool is_f8_to_16_bit(const LinearW8A8::Args& a, const Context&) {
  return a.x.dtype == DType::kF8E4M3 && dtype_bytes(a.y.dtype) == 2;
}
#endif

Status expect_contiguous(std::string_view operand, const ConstTensor& t) {
  if (t.contiguous()) return {};
  return invalid(LinearW8A8::kName, std::string(operand) + " must be contiguous");
}

}  // namespace

Status LinearW8A8::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  const int64_t m = a.x.dim(0), k = a.x.dim(1);
  VLR_RETURN_IF_ERROR(expect_shape(kName, "w", a.w, {-1, k}));
  const int64_t n = a.w.dim(0);
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x_scale", a.x_scale, {m}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "w_scale", a.w_scale, {n}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {m, n}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kI8, DType::kF8E4M3}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "w", a.w, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x_scale", a.x_scale, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "w_scale", a.w_scale, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "y", a.y));
  VLR_RETURN_IF_ERROR(expect_contiguous("x", a.x));
  VLR_RETURN_IF_ERROR(expect_contiguous("w", a.w));
  VLR_RETURN_IF_ERROR(expect_contiguous("x_scale", a.x_scale));
  VLR_RETURN_IF_ERROR(expect_contiguous("w_scale", a.w_scale));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (a.bias.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "bias", a.bias, {n}));
    VLR_RETURN_IF_ERROR(expect_weight(kName, "bias", a.bias, a.y));
    VLR_RETURN_IF_ERROR(expect_contiguous("bias", a.bias));
  }
  if (a.residual.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "residual", a.residual, {m, n}));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "residual", a.residual, {a.y.dtype}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, "residual", a.residual));
    if (a.activation != Activation::kNone)
      return invalid(kName, "residual and activation exclude each other");
  }
  if (n < 1 || k < 1) return invalid(kName, "N and K must be at least 1, got w " + describe(a.w));
  if (a.x.dtype == DType::kI8 && k >= 1 << 17)
    return invalid(kName, "K must be below 131072 for i8, got x " + describe(a.x));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "w", a.w));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "bias", a.bias));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "x_scale", a.x_scale));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "w_scale", a.w_scale));
  return expect_same_or_no_overlap(kName, "y", a.y, "residual", a.residual);
}

Cost LinearW8A8::cost(const Args& a) {
  const double m = static_cast<double>(a.x.dim(0)), k = static_cast<double>(a.x.dim(1)),
               n = static_cast<double>(a.w.dim(0));
  const int64_t scales = a.x_scale.bytes() + a.w_scale.bytes();
  const int64_t residual = a.residual.defined() ? a.residual.bytes() : 0;
  return {.bytes = static_cast<double>(a.x.bytes() + a.w.bytes() + scales + a.y.bytes() + residual),
          .flops = 2 * m * n * k};
}

Tolerance LinearW8A8::tolerance(const Args& a) {
  // In tests a code times its scale is of size about 1, or with an activation the product is: sums
  // times scales are of size sqrt(K), or 1, and at most five times that. A few of their f32
  // roundings may be left when bias or residual cancel them.
  const double k = static_cast<double>(a.x.dim(1)), epsilon = dtype_epsilon(a.y.dtype);
  const bool is_f8 = a.x.dtype == DType::kF8E4M3, is_f32 = a.y.dtype == DType::kF32;
  const bool has_activation = a.activation != Activation::kNone;
  const double size = 5 * (has_activation ? 1 : std::sqrt(k));
  // f32: three roundings a side; 16 bits: one.
  Tolerance t{.rel = is_f32 ? 6 * epsilon : 2.02 * epsilon, .abs = 4 * size * 0x1p-24};
  // GELU by the hardware's tanh, as in linear.
  if (has_activation) t.abs += is_f32 ? 4 * size * 0x1p-24 : 0x1p-9;
  if (is_f8 && is_f32) t.abs += 4 * k * 0x1p-24;  // a chain of K roundings, as in linear
  if (is_f8 && !is_f32) {
    // Tensor cores that sum fast keep 14 bits of a running sum: each of K / 32 steps may cut off
    // 2^-12 of its size, all to the same side. Of thousands of sums some are a quarter above the
    // typical size at every step.
    t.abs += size * std::max(1.0, k / 32 / 5) * 1.25 * 0x1p-12;
    // The product may be rounded once more, before it meets what may leave little of it.
    t.rel += 1.01 * epsilon;
    if (a.bias.defined() || a.residual.defined() || has_activation) t.abs += size * epsilon;
  }
  return t;
}

std::span<const Impl<LinearW8A8>> LinearW8A8::impls() {
  static constexpr Impl<LinearW8A8> kImpls[] = {
#if VLR_WITH_CUDA
    {"mma_s8", Device::kCuda, linear_w8a8_mma_s8, is_i8_to_16_bit},
    {"cublaslt", Device::kCuda, linear_w8a8_cublaslt, linear_w8a8_cublaslt_supports,
     linear_w8a8_cublaslt_workspace},
    {"cublaslt_scalar", Device::kCuda, linear_w8a8_cublaslt_scalar,
     linear_w8a8_cublaslt_scalar_supports, linear_w8a8_cublaslt_scalar_workspace},
    {"widen", Device::kCuda, linear_w8a8_widen, is_f8_to_16_bit, linear_w8a8_widen_workspace},
#endif
    {"blocked", Device::kCpu, linear_w8a8_blocked, is_f32_without_epilogue,
     linear_w8a8_blocked_workspace},
    {"reference", Device::kCpu, linear_w8a8_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
