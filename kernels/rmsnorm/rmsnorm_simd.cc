// rmsnorm/simd: a row at a time, rows over threads. The sum of squares has fold()'s fixed order.
// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rmsnorm/rmsnorm_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "kernels/core/parallel_rows.h"
#include "kernels/core/scratch.h"
#include "kernels/core/simd.h"
#include "kernels/core/widen.h"
#include "kernels/rmsnorm/impls.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

namespace {

/// The 1 / sqrt is taken in f64, once per row, and rounded to f32.
void normalise(const float* x, const float* weight, int64_t dim, float eps, float* y) {
  const float squares =
      fold(x, dim, 0.0f, [](VecF32 sum, VecF32 v) HWY_ATTR { return fma(v, v, sum); });
  const double mean = static_cast<double>(squares) / static_cast<double>(dim);
  const VecF32 scale =
      hn::Set(F32(), static_cast<float>(1 / std::sqrt(mean + static_cast<double>(eps))));
  map(
      dim, y, [&](VecF32 v, VecF32 w) HWY_ATTR { return hn::Mul(hn::Mul(v, scale), w); }, x,
      weight);
}

}  // namespace

void run_rmsnorm_simd(const RmsNorm::Args& a, const Context& ctx, const float* weight) {
  const bool has_heads = a.x.rank == 3;
  const int64_t dim = a.x.dim(a.x.rank - 1), heads = has_heads ? a.x.dim(1) : 1;
  parallel_rows(*ctx.threads, a.x.dim(0), heads * dim, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) {
      const float* x = a.x.row<float>(r) + (has_heads ? h * a.x.stride(1) : 0);
      float* y = a.y.row<float>(r) + (has_heads ? h * a.y.stride(1) : 0);
      normalise(x, weight, dim, a.eps, y);
    }
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_rmsnorm_simd);

int64_t rmsnorm_simd_workspace(const RmsNorm::Args& a, const Context&) {
  Scratch count;
  count.take<float>(a.weight.dim(0));
  return count.used();
}

Status rmsnorm_simd(const RmsNorm::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  auto* weight = scratch.take<float>(a.weight.dim(0));
  VLR_RETURN_IF_ERROR(scratch.status("rmsnorm/simd"));
  widen(a.weight, weight);
  HWY_DYNAMIC_DISPATCH(run_rmsnorm_simd)(a, ctx, weight);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
