#include "kernels/deepstack_add/deepstack_add.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/deepstack_add/impls.h"

namespace vlr::ops {

Status DeepstackAdd::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "visual_row", a.visual_row, {a.x.dim(0)}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "features", a.features, {-1, a.x.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "visual_row", a.visual_row, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "features", a.features, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "features", a.features));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  return expect_same_or_no_overlap(kName, "y", a.y, "x", a.x);
}

Cost DeepstackAdd::cost(const Args& a) {
  // How many rows are visual is in the data; this counts each feature once.
  const double moved = static_cast<double>(a.features.bytes()) * 3;
  return {.bytes =
              moved + (a.x.data == a.y.data ? 0.0 : static_cast<double>(a.x.bytes() + a.y.bytes())),
          .flops = static_cast<double>(a.features.numel())};
}

Tolerance DeepstackAdd::tolerance(const Args&) { return {}; }

std::span<const Impl<DeepstackAdd>> DeepstackAdd::impls() {
  static constexpr Impl<DeepstackAdd> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, deepstack_add_vector},
#endif
    {"reference", Device::kCpu, deepstack_add_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
