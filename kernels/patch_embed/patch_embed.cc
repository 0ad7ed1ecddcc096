#include "kernels/patch_embed/patch_embed.h"

#include "kernels/linear/linear.h"
#include "kernels/patch_embed/impls.h"

namespace vlr::ops {

Status PatchEmbed::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "x", a.x, {DType::kU8}));
  if (!a.x.contiguous()) return invalid(kName, "x must be contiguous");
  // The rest is linear's, for pixels in f32.
  const ConstTensor pixels(nullptr, DType::kF32, {a.x.dim(0), a.x.dim(1)});
  return Linear::check({.x = pixels, .w = a.w, .bias = a.bias, .y = a.y}).with_context(kName);
}

Cost PatchEmbed::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.w.bytes() + a.y.bytes()),
          .flops = 2.0 * static_cast<double>(a.x.numel()) * static_cast<double>(a.w.dim(0))};
}

Tolerance PatchEmbed::tolerance(const Args& a) {
  return {.rel = 0x1p-22, .abs = 4 * static_cast<double>(a.x.dim(1)) * 0x1p-24};  // as linear
}

std::span<const Impl<PatchEmbed>> PatchEmbed::impls() {
  static constexpr Impl<PatchEmbed> kImpls[] = {
      {"blocked", Device::kCpu, patch_embed_blocked, nullptr, patch_embed_blocked_workspace},
      {"reference", Device::kCpu, patch_embed_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
