#include "kernels/vision_pos_embed/vision_pos_embed.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/vision_pos_embed/impls.h"

namespace vlr::ops {

Status VisionPosEmbed::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "table", a.table, {-1, a.x.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "indices", a.indices, {a.x.dim(0), 4}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "weights", a.weights, {a.x.dim(0), 4}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_weight(kName, "table", a.table, a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "indices", a.indices, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "weights", a.weights, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (!a.table.contiguous()) return invalid(kName, "table must be contiguous");
  if (!a.indices.contiguous() || !a.weights.contiguous()) {
    return invalid(kName, "indices and weights must be contiguous");
  }
  return expect_same_or_no_overlap(kName, "y", a.y, "x", a.x);
}

Cost VisionPosEmbed::cost(const Args& a) {
  const int64_t bytes =
      a.x.bytes() + a.y.bytes() + a.indices.bytes() + a.weights.bytes() + a.table.bytes();
  return {.bytes = static_cast<double>(bytes), .flops = 8.0 * static_cast<double>(a.x.numel())};
}

Tolerance VisionPosEmbed::tolerance(const Args& a) {
  return {.rel = 4 * dtype_epsilon(a.y.dtype), .abs = 0x1p-21};
}

std::span<const Impl<VisionPosEmbed>> VisionPosEmbed::impls() {
  static constexpr Impl<VisionPosEmbed> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, vision_pos_embed_vector},
#endif
    {"reference", Device::kCpu, vision_pos_embed_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
