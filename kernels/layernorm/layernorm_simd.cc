// layernorm/simd: a row at a time, rows over threads. Both sums have fold()'s fixed order.
// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/layernorm/layernorm_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "kernels/core/parallel_rows.h"
#include "kernels/core/scratch.h"
#include "kernels/core/simd.h"
#include "kernels/core/widen.h"
#include "kernels/layernorm/impls.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

namespace {

/// Two passes, mean then variance; what is one number per row is computed in f64 and rounded to
/// f32.
void normalise(const float* x, const float* weight, const float* bias, int64_t dim, float eps,
               float* y) {
  const float sum = fold(x, dim, 0.0f, [](VecF32 s, VecF32 v) HWY_ATTR { return hn::Add(s, v); });
  const float mean = static_cast<float>(static_cast<double>(sum) / static_cast<double>(dim));
  const VecF32 mean_vec = hn::Set(F32(), mean);
  const float squares = fold(x, dim, mean, [&](VecF32 s, VecF32 v) HWY_ATTR {
    const VecF32 centred = hn::Sub(v, mean_vec);
    return fma(centred, centred, s);
  });
  const double variance = static_cast<double>(squares) / static_cast<double>(dim);
  const VecF32 scale =
      hn::Set(F32(), static_cast<float>(1 / std::sqrt(variance + static_cast<double>(eps))));
  const auto affine = [&](VecF32 v, VecF32 w, VecF32 b)
                          HWY_ATTR { return fma(hn::Mul(hn::Sub(v, mean_vec), scale), w, b); };
  map(dim, y, affine, x, weight, bias);
}

}  // namespace

void run_layernorm_simd(const LayerNorm::Args& a, const Context& ctx, const float* weight,
                        const float* bias) {
  const int64_t dim = a.x.dim(1);
  parallel_rows(*ctx.threads, a.x.dim(0), dim, [&](int64_t r) {
    normalise(a.x.row<float>(r), weight, bias, dim, a.eps, a.y.row<float>(r));
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_layernorm_simd);

int64_t layernorm_simd_workspace(const LayerNorm::Args& a, const Context&) {
  Scratch count;
  count.take<float>(a.weight.dim(0));
  count.take<float>(a.bias.dim(0));
  return count.used();
}

Status layernorm_simd(const LayerNorm::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  auto* weight = scratch.take<float>(a.weight.dim(0));
  auto* bias = scratch.take<float>(a.bias.dim(0));
  VLR_RETURN_IF_ERROR(scratch.status("layernorm/simd"));
  widen(a.weight, weight);
  widen(a.bias, bias);
  HWY_DYNAMIC_DISPATCH(run_layernorm_simd)(a, ctx, weight, bias);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
