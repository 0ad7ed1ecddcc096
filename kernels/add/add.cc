#include "kernels/add/add.h"

#include "kernels/add/impls.h"

namespace vlr::ops {

Status Add::check(const Args& args) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "a", args.a, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "b", args.b, args.a));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", args.y, args.a));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "a", args.a, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "b", args.b, {args.a.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", args.y, {args.a.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "a", args.a));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "b", args.b));
  return expect_rows(kName, "y", args.y);
}

Cost Add::cost(const Args& args) {
  return {.bytes = static_cast<double>(3 * args.y.bytes()),
          .flops = static_cast<double>(args.y.numel())};
}

Tolerance Add::tolerance(const Args&) { return {}; }  // one rounding: every implementation agrees

std::span<const Impl<Add>> Add::impls() {
  static constexpr Impl<Add> kImpls[] = {
      {"simd", Device::kCpu, add_simd},
      {"reference", Device::kCpu, add_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
