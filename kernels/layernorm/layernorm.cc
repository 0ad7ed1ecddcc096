#include "kernels/layernorm/layernorm.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/layernorm/impls.h"

namespace vlr::ops {

Status LayerNorm::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "weight", a.weight, {a.x.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "bias", a.bias, {a.x.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_weight(kName, "weight", a.weight, a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "bias", a.bias, {a.weight.dtype}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (a.x.dim(1) < 1) return invalid(kName, "dim must be at least 1, got " + describe(a.x));
  if (!(a.eps > 0)) return invalid(kName, "eps must be above 0");
  return expect_same_or_no_overlap(kName, "y", a.y, "x", a.x);
}

namespace {
bool is_f32(const LayerNorm::Args& a, const Context&) { return a.x.dtype == DType::kF32; }
}  // namespace

Cost LayerNorm::cost(const Args& a) {
  return {
      .bytes = static_cast<double>(a.x.bytes() + a.weight.bytes() + a.bias.bytes() + a.y.bytes()),
      .flops = 7.0 * static_cast<double>(a.x.numel())};
}

Tolerance LayerNorm::tolerance(const Args& a) {
  // The sums as RMSNorm's; the subtraction of the mean and the bias leave absolute errors of the
  // size of the terms, in f32.
  const double sum = static_cast<double>(a.x.dim(1)) * 0x1p-25;
  return {.rel = 4 * dtype_epsilon(a.x.dtype) + sum,
          .abs = 16 * 0x1p-24 + sum + least_step(a.x.dtype)};
}

std::span<const Impl<LayerNorm>> LayerNorm::impls() {
  static constexpr Impl<LayerNorm> kImpls[] = {
#if VLR_WITH_CUDA
    {"in_registers", Device::kCuda, layernorm_in_registers, layernorm_fits_registers},
    {"warp_per_row", Device::kCuda, layernorm_warp_per_row},
#endif
    {"simd", Device::kCpu, layernorm_simd, is_f32, layernorm_simd_workspace},
    {"reference", Device::kCpu, layernorm_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
