#include "kernels/score_head/score_head.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/score_head/impls.h"

namespace vlr::ops {

Status ScoreHead::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "norm_weight", a.norm_weight, {a.x.dim(1)}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "w", a.w, {-1, a.x.dim(1)}));
  if (a.w.dim(0) != 1 && a.w.dim(0) != 2)
    return invalid(kName, "w must have 1 or 2 rows, got " + describe(a.w));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "log_odds", a.log_odds, {a.x.dim(0)}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_weight(kName, "norm_weight", a.norm_weight, a.x));
  VLR_RETURN_IF_ERROR(expect_weight(kName, "w", a.w, a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "log_odds", a.log_odds, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  if (!a.w.contiguous()) return invalid(kName, "w must be contiguous");
  if (!(a.eps > 0)) return invalid(kName, "eps must be above 0");
  return {};
}

Cost ScoreHead::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.w.bytes() + a.norm_weight.bytes() +
                                       a.log_odds.bytes()),
          .flops = 7.0 * static_cast<double>(a.x.numel())};
}

Tolerance ScoreHead::tolerance(const Args& a) {
  return {.rel = 0x1p-20, .abs = static_cast<double>(a.x.dim(1)) * 0x1p-23};
}

std::span<const Impl<ScoreHead>> ScoreHead::impls() {
  static constexpr Impl<ScoreHead> kImpls[] = {
#if VLR_WITH_CUDA
    {"block_per_row", Device::kCuda, score_head_block_per_row},
#endif
    {"reference", Device::kCpu, score_head_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
