#include "kernels/linear_weight_only/linear_weight_only.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/linear_weight_only/impls.h"

namespace vlr::ops {
namespace {

bool is_f32_without_epilogue(const LinearWeightOnly::Args& a, const Context&) {
  return a.x.dtype == DType::kF32 && !a.residual.defined() && a.activation == Activation::kNone;
}

#if VLR_WITH_CUDA
bool is_16_bit(const LinearWeightOnly::Args& a, const Context&) {
  return dtype_bytes(a.x.dtype) == 2;
}
#endif

}  // namespace

Status LinearWeightOnly::check(const Args& a) {
  VLR_RETURN_IF_ERROR(a.w.check(kName));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, a.w.cols}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {a.x.dim(0), -1}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  const int64_t n = a.y.dim(1);
  if (a.bias.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "bias", a.bias, {n}));
    VLR_RETURN_IF_ERROR(expect_weight(kName, "bias", a.bias, a.x));
    VLR_RETURN_IF_ERROR(expect_rows(kName, "bias", a.bias));
  }
  if (a.residual.defined()) {
    VLR_RETURN_IF_ERROR(expect_same_shape(kName, "residual", a.residual, a.y));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "residual", a.residual, {a.x.dtype}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, "residual", a.residual));
    if (a.activation != Activation::kNone)
      return invalid(kName, "residual and activation exclude each other");
  }
  if (n < 1) return invalid(kName, "N must be at least 1, got y " + describe(a.y));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "w", a.w.codes));
  VLR_RETURN_IF_ERROR(expect_no_overlap(kName, "y", a.y, "bias", a.bias));
  VLR_RETURN_IF_ERROR(expect_same_or_no_overlap(kName, "y", a.y, "residual", a.residual));
  if (a.first_row >= 0 && a.first_row + n <= a.w.rows) return {};
  return invalid(kName, "w has " + std::to_string(a.w.rows) + " rows, not the " +
                            std::to_string(n) + " from row " + std::to_string(a.first_row));
}

Cost LinearWeightOnly::cost(const Args& a) {
  const double m = static_cast<double>(a.x.dim(0)), k = static_cast<double>(a.x.dim(1)),
               n = static_cast<double>(a.y.dim(1));
  const double weight = static_cast<double>(a.w.bytes()) * n / static_cast<double>(a.w.rows);
  const int64_t residual = a.residual.defined() ? a.residual.bytes() : 0;
  return {.bytes = weight + static_cast<double>(a.x.bytes() + a.y.bytes() + residual),
          .flops = 2 * m * n * k};
}

Tolerance LinearWeightOnly::tolerance(const Args& a) {
  // That of the product: the weight's values are the same numbers everywhere.
  return Linear::tolerance({.x = a.x,
                            .w = {},
                            .bias = a.bias,
                            .residual = a.residual,
                            .y = a.y,
                            .activation = a.activation});
}

std::span<const Impl<LinearWeightOnly>> LinearWeightOnly::impls() {
  static constexpr Impl<LinearWeightOnly> kImpls[] = {
#if VLR_WITH_CUDA
    {"fused_mma", Device::kCuda, linear_weight_only_fused_mma,
     linear_weight_only_fused_mma_supports, linear_weight_only_dequantize_workspace},
    {"dequantize", Device::kCuda, linear_weight_only_dequantize, is_16_bit,
     linear_weight_only_dequantize_workspace},
#endif
    {"blocked", Device::kCpu, linear_weight_only_blocked, is_f32_without_epilogue,
     linear_weight_only_blocked_workspace},
    {"reference", Device::kCpu, linear_weight_only_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
