#include "kernels/quantize_rows/quantize_rows.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/quantize_rows/impls.h"

namespace vlr::ops {
namespace {

Status expect_contiguous(std::string_view operand, const ConstTensor& t) {
  if (t.contiguous()) return {};
  return invalid(QuantizeRows::kName, std::string(operand) + " must be contiguous");
}

}  // namespace

Status QuantizeRows::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "q", a.q, a.x));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "scale", a.scale, {a.x.dim(0)}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "q", a.q, {DType::kI8, DType::kF8E4M3}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "scale", a.scale, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_contiguous("q", a.q));
  VLR_RETURN_IF_ERROR(expect_contiguous("scale", a.scale));
  if (a.outliers.defined()) {
    VLR_RETURN_IF_ERROR(expect_same_shape(kName, "outliers", a.outliers, a.x));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "outliers", a.outliers, {a.x.dtype}));
    VLR_RETURN_IF_ERROR(expect_contiguous("outliers", a.outliers));
    if (!(a.threshold > 0)) return invalid(kName, "threshold must be above 0");
  }
  if (a.x.dim(1) < 1) return invalid(kName, "K must be at least 1, got " + describe(a.x));
  return {};
}

Cost QuantizeRows::cost(const Args& a) {
  const int64_t outliers = a.outliers.defined() ? a.outliers.bytes() : 0;
  return {.bytes = static_cast<double>(a.x.bytes() + a.q.bytes() + a.scale.bytes() + outliers),
          .flops = 3.0 * static_cast<double>(a.x.numel())};
}

Tolerance QuantizeRows::tolerance(const Args&) {
  return {};  // a maximum has no order, and all else is rounded as the contract says
}

std::span<const Impl<QuantizeRows>> QuantizeRows::impls() {
  static constexpr Impl<QuantizeRows> kImpls[] = {
#if VLR_WITH_CUDA
    {"block_per_row", Device::kCuda, quantize_rows_block_per_row, nullptr,
     quantize_rows_block_per_row_workspace},
#endif
    {"threads", Device::kCpu, quantize_rows_threads, nullptr, quantize_rows_threads_workspace},
    {"reference", Device::kCpu, quantize_rows_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
