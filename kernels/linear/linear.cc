#include "kernels/linear/linear.h"

#include <cmath>

#include "kernels/linear/impls.h"

namespace vlr::ops {
namespace {

bool is_f32_without_epilogue(const Linear::Args& a, const Context&) {
  return a.x.dtype == DType::kF32 && !a.residual.defined() && a.activation == Activation::kNone;
}

#if VLR_WITH_CUDA
bool is_16_bit(const Linear::Args& a, const Context&) { return dtype_bytes(a.x.dtype) == 2; }
#endif

}  // namespace

Status Linear::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "w", a.w, {-1, a.x.dim(1)}));
  const int64_t n = a.w.dim(0);
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {a.x.dim(0), n}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kF32, DType::kBF16, DType::kF16}));
  if (a.x.dtype == DType::kF32) {
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "w", a.w, {DType::kF32, DType::kBF16, DType::kF16}));
  } else {
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "w", a.w, {a.x.dtype}));
  }
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (a.bias.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "bias", a.bias, {n}));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "bias", a.bias, {a.w.dtype}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, "bias", a.bias));
  }
  if (a.residual.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "residual", a.residual, {a.x.dim(0), n}));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "residual", a.residual, {a.x.dtype}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, "residual", a.residual));
    if (a.activation != Activation::kNone)
      return invalid(kName, "residual and activation exclude each other");
  }
  if (!a.w.contiguous()) return invalid(kName, "w must be contiguous");
  if (n < 1 || a.x.dim(1) < 1)
    return invalid(kName, "N and K must be at least 1, got w " + describe(a.w));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "w", a.w));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "bias", a.bias));
  return expect_same_or_no_overlap(kName, "y", a.y, "residual", a.residual);
}

Cost Linear::cost(const Args& a) {
  const double m = static_cast<double>(a.x.dim(0)), k = static_cast<double>(a.x.dim(1)),
               n = static_cast<double>(a.w.dim(0));
  const int64_t residual = a.residual.defined() ? a.residual.bytes() : 0;
  return {.bytes = static_cast<double>(a.x.bytes() + a.w.bytes() + a.y.bytes() + residual),
          .flops = 2 * m * n * k};
}

Tolerance Linear::tolerance(const Args& a) {
  // A chain of K f32 roundings of partial sums of random sign: errors add up like a random walk,
  // and relative to the size of a row's terms, not of their sum. Test operands are of size about 1,
  // so partial sums are of size sqrt(K).
  const double k = static_cast<double>(a.x.dim(1));
  if (a.x.dtype == DType::kF32) {
    const double steps = a.activation == Activation::kNone ? 4 : 8;
    return {.rel = 0x1p-22, .abs = steps * k * 0x1p-24};
  }
  // One rounding on both sides of the comparison, and tensor cores cut off where an f32 sum rounds.
  // GELU by the hardware's tanh (2^-11) is off by half of that times the input, which is a few
  // units where it matters: further out the tanh is 1.
  Tolerance t{.rel = 2.02 * dtype_epsilon(a.x.dtype), .abs = 16 * k * 0x1p-24};
  if (a.activation != Activation::kNone) t.abs += 0x1p-9;
  // A product of size sqrt(K), at most five times that in a test, rounded before it meets the
  // residual: what is left of both may be small.
  if (a.residual.defined()) t.abs += 5 * std::sqrt(k) * dtype_epsilon(a.x.dtype);
  return t;
}

std::span<const Impl<Linear>> Linear::impls() {
  static constexpr Impl<Linear> kImpls[] = {
#if VLR_WITH_CUDA
    {"cublaslt", Device::kCuda, linear_cublaslt, linear_cublaslt_supports,
     linear_cublaslt_workspace},
    {"mma", Device::kCuda, linear_mma, is_16_bit},
#endif
    {"blocked", Device::kCpu, linear_blocked, is_f32_without_epilogue, linear_blocked_workspace},
    {"reference", Device::kCpu, linear_reference},
#if VLR_WITH_OPENBLAS
    {"openblas", Device::kCpu, linear_openblas, is_f32_without_epilogue, linear_openblas_workspace},
#endif
  };
  return kImpls;
}

}  // namespace vlr::ops
