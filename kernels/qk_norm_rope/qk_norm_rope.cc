#include "kernels/qk_norm_rope/qk_norm_rope.h"

#include <fmt/format.h>

#include "kernels/core/activation_dtypes.h"
#include "kernels/qk_norm_rope/impls.h"
#include "kernels/rope/rope.h"

namespace vlr::ops {

Status QkNormRope::check(const Args& a) {
  VLR_RETURN_IF_ERROR(Rope::check({.x = a.x, .table = a.table, .y = a.y}).with_context(kName));
  const int64_t heads = a.x.dim(1), head_dim = a.x.dim(2);
  if (a.num_q_heads < 0 || a.num_q_heads > heads) {
    return invalid(kName,
                   fmt::format("num_q_heads must be in [0, {}], got {}", heads, a.num_q_heads));
  }
  if (head_dim < 2) return invalid(kName, "head_dim must be at least 2, got x " + describe(a.x));
  if (a.num_q_heads > 0) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "q_weight", a.q_weight, {head_dim}));
    VLR_RETURN_IF_ERROR(expect_weight(kName, "q_weight", a.q_weight, a.x));
  }
  if (a.num_q_heads < heads) {
    VLR_RETURN_IF_ERROR(expect_shape(kName, "k_weight", a.k_weight, {head_dim}));
    VLR_RETURN_IF_ERROR(expect_weight(kName, "k_weight", a.k_weight, a.x));
  }
  if (!(a.eps > 0)) return invalid(kName, "eps must be above 0");
  return {};
}

Cost QkNormRope::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.table.bytes() + a.y.bytes()),
          .flops = 7.0 * static_cast<double>(a.x.numel())};
}

Tolerance QkNormRope::tolerance(const Args& a) {
  // The f32 sum as in rmsnorm; the two products of the rotation may cancel: what remains of it is
  // an error of the size of the operands, a norm of about 1 times a weight of about 1.
  const double sum = static_cast<double>(a.x.dim(2)) * 0x1p-25;
  return {.rel = 4 * dtype_epsilon(a.x.dtype) + sum,
          .abs = 32 * 0x1p-24 + 8 * sum + least_step(a.x.dtype)};
}

std::span<const Impl<QkNormRope>> QkNormRope::impls() {
  static constexpr Impl<QkNormRope> kImpls[] = {
#if VLR_WITH_CUDA
    {"half_split", Device::kCuda, qk_norm_rope_half_split, qk_norm_rope_in_half_splits},
    {"warp_per_head", Device::kCuda, qk_norm_rope_warp_per_head},
#endif
    {"reference", Device::kCpu, qk_norm_rope_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
