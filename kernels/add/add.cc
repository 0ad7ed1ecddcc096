#include "kernels/add/add.h"

#include "kernels/add/impls.h"
#include "kernels/core/activation_dtypes.h"

namespace vlr::ops {

Status Add::check(const Args& args) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "a", args.a, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "b", args.b, args.a));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", args.y, args.a));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "a", args.a));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "b", args.b, {args.a.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", args.y, {args.a.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "a", args.a));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "b", args.b));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", args.y));
  VLR_RETURN_IF_ERROR(expect_same_or_no_overlap(kName, "y", args.y, "a", args.a));
  return expect_same_or_no_overlap(kName, "y", args.y, "b", args.b);
}

namespace {
bool is_f32(const Add::Args& args, const Context&) { return args.a.dtype == DType::kF32; }
}  // namespace

Cost Add::cost(const Args& args) {
  return {.bytes = static_cast<double>(3 * args.y.bytes()),
          .flops = static_cast<double>(args.y.numel())};
}

Tolerance Add::tolerance(const Args&) { return {}; }  // every implementation agrees

std::span<const Impl<Add>> Add::impls() {
  static constexpr Impl<Add> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, add_vector},
#endif
    {"simd", Device::kCpu, add_simd, is_f32},
    {"reference", Device::kCpu, add_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
