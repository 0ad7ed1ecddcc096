#include "kernels/convert/convert.h"

#include "kernels/convert/impls.h"

namespace vlr::ops {

Status Convert::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kF32, DType::kBF16, DType::kF16}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {DType::kF32, DType::kBF16, DType::kF16}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  return expect_no_overlap(kName, "y", a.y, "x", a.x);
}

Cost Convert::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.y.bytes()), .flops = 0};
}

Tolerance Convert::tolerance(const Args&) { return {}; }  // every implementation agrees

std::span<const Impl<Convert>> Convert::impls() {
  static constexpr Impl<Convert> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, convert_vector},
#endif
    {"reference", Device::kCpu, convert_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
