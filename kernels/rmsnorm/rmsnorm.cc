#include "kernels/rmsnorm/rmsnorm.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/rmsnorm/impls.h"

namespace vlr::ops {

Status RmsNorm::check(const Args& a) {
  if (a.x.rank != 2 && a.x.rank != 3)
    return invalid(kName, "x must have 2 or 3 axes, got " + describe(a.x));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "weight", a.weight, {a.x.dim(a.x.rank - 1)}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_weight(kName, "weight", a.weight, a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (a.x.dim(a.x.rank - 1) < 1)
    return invalid(kName, "dim must be at least 1, got " + describe(a.x));
  if (!(a.eps > 0)) return invalid(kName, "eps must be above 0");
  return expect_same_or_no_overlap(kName, "y", a.y, "x", a.x);
}

namespace {
bool is_f32(const RmsNorm::Args& a, const Context&) { return a.x.dtype == DType::kF32; }
}  // namespace

Cost RmsNorm::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.weight.bytes() + a.y.bytes()),
          .flops = 4.0 * static_cast<double>(a.x.numel())};
}

Tolerance RmsNorm::tolerance(const Args& a) {
  // Two roundings to the dtype of x; an f32 sum of dim terms is off by <= dim * 2^-24, halved by
  // the square root. Weights are of size about 1: around zero, two steps of f16 and a little.
  return {
      .rel = 4 * dtype_epsilon(a.x.dtype) + static_cast<double>(a.x.dim(a.x.rank - 1)) * 0x1p-25,
      .abs = 8 * least_step(a.x.dtype)};
}

std::span<const Impl<RmsNorm>> RmsNorm::impls() {
  static constexpr Impl<RmsNorm> kImpls[] = {
#if VLR_WITH_CUDA
    {"in_registers", Device::kCuda, rmsnorm_in_registers, rmsnorm_fits_registers},
    {"warp_per_row", Device::kCuda, rmsnorm_warp_per_row},
#endif
    {"simd", Device::kCpu, rmsnorm_simd, is_f32, rmsnorm_simd_workspace},
    {"reference", Device::kCpu, rmsnorm_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
