#include "kernels/embedding/embedding.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/embedding/impls.h"

namespace vlr::ops {

Status Embedding::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "ids", a.ids, {-1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "visual_row", a.visual_row, {a.ids.dim(0)}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "table", a.table, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {a.ids.dim(0), a.table.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "ids", a.ids, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "visual_row", a.visual_row, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "y", a.y));
  VLR_RETURN_IF_ERROR(expect_weight(kName, "table", a.table, a.y));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (!a.table.contiguous()) return invalid(kName, "table must be contiguous");
  if (a.visual.defined()) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "visual", a.visual, {-1, a.table.dim(1)}));
    VLR_RETURN_IF_ERROR(expect_dtype(kName, "visual", a.visual, {a.y.dtype}));
    VLR_RETURN_IF_ERROR(expect_rows(kName, "visual", a.visual));
  }
  return {};
}

Cost Embedding::cost(const Args& a) {
  const double row = static_cast<double>(a.table.dim(1) * dtype_bytes(a.table.dtype));
  return {.bytes = static_cast<double>(a.ids.dim(0)) * row + static_cast<double>(a.y.bytes()),
          .flops = 0};
}

Tolerance Embedding::tolerance(const Args&) { return {}; }

std::span<const Impl<Embedding>> Embedding::impls() {
  static constexpr Impl<Embedding> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, embedding_vector},
#endif
    {"reference", Device::kCpu, embedding_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
