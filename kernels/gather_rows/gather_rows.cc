#include "kernels/gather_rows/gather_rows.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/gather_rows/impls.h"

namespace vlr::ops {

Status GatherRows::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "rows", a.rows, {-1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {a.rows.dim(0), a.x.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "rows", a.rows, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  return expect_no_overlap(kName, "y", a.y, "x", a.x);
}

Cost GatherRows::cost(const Args& a) {
  return {.bytes = static_cast<double>(2 * a.y.bytes()), .flops = 0};
}

Tolerance GatherRows::tolerance(const Args&) { return {}; }

std::span<const Impl<GatherRows>> GatherRows::impls() {
  static constexpr Impl<GatherRows> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, gather_rows_vector},
#endif
    {"reference", Device::kCpu, gather_rows_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
