/// The reranker's head: final RMSNorm and the difference of the "yes" and "no" logits.
///   log_odds[b] = sum_i n[b, i] * (w[0, i] - w[1, i])      n = RMSNorm(x, norm_weight, eps)
/// or, where the checkpoint holds the difference itself, sum_i n[b, i] * w[0, i].
///
///   x            [B, C]  f32 | bf16 | f16; rows may be strided
///   norm_weight  [C]     dtype of x, or with f32 x also bf16 | f16
///   w            [2, C]  dtype of x, or with f32 x also bf16 | f16; contiguous: the rows of
///                        lm_head for "yes" and "no"
///                [1, C]  their difference
///   log_odds     [B]     f32
///
/// Rounding: f32 or wider throughout, whatever the dtypes; the sigmoid of log_odds is the score.
#ifndef VLR_KERNELS_SCORE_HEAD_SCORE_HEAD_H_
#define VLR_KERNELS_SCORE_HEAD_SCORE_HEAD_H_

#include "kernels/core/op.h"

namespace vlr::ops {

struct ScoreHead {
  static constexpr std::string_view kName = "score_head";
  struct Args {
    ConstTensor x, norm_weight, w;
    Tensor log_odds;
    float eps = 1e-6f;
  };
  static Status check(const Args&);
  static Cost cost(const Args&);
  static Tolerance tolerance(const Args&);
  static std::span<const Impl<ScoreHead>> impls();
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_SCORE_HEAD_SCORE_HEAD_H_
