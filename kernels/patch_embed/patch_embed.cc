#include "kernels/patch_embed/patch_embed.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/linear/linear.h"
#include "kernels/patch_embed/impls.h"

namespace vlr::ops {

Status PatchEmbed::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kU8}));
  if (!a.x.contiguous()) return invalid(kName, "x must be contiguous");
  VLR_RETURN_IF_ERROR(expect_activation(kName, "y", a.y));
  return Linear::check(linear_args(a, nullptr)).with_context(kName);
}

Linear::Args linear_args(const PatchEmbed::Args& a, const void* pixels) {
  return {.x = ConstTensor(pixels, a.y.dtype, {a.x.dim(0), a.x.dim(1)}, a.x.device),
          .w = a.w,
          .bias = a.bias,
          .y = a.y};
}

namespace {
bool is_f32(const PatchEmbed::Args& a, const Context&) { return a.y.dtype == DType::kF32; }
#if VLR_WITH_CUDA
bool is_16_bit(const PatchEmbed::Args& a, const Context&) { return dtype_bytes(a.y.dtype) == 2; }
#endif
}  // namespace

Cost PatchEmbed::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.w.bytes() + a.y.bytes()),
          .flops = 2.0 * static_cast<double>(a.x.numel()) * static_cast<double>(a.w.dim(0))};
}

Tolerance PatchEmbed::tolerance(const Args& a) {
  return Linear::tolerance(linear_args(a, nullptr));
}

std::span<const Impl<PatchEmbed>> PatchEmbed::impls() {
  static constexpr Impl<PatchEmbed> kImpls[] = {
#if VLR_WITH_CUDA
    {"normalize_linear", Device::kCuda, patch_embed_normalize_linear, is_16_bit,
     patch_embed_normalize_linear_workspace},
#endif
    {"blocked", Device::kCpu, patch_embed_blocked, is_f32, patch_embed_blocked_workspace},
    {"reference", Device::kCpu, patch_embed_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
