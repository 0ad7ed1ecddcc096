// rope/simd: vectors of pairs, tokens over threads.
// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope/rope_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "kernels/core/parallel_rows.h"
#include "kernels/core/simd.h"
#include "kernels/rope/impls.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

namespace {

/// One head: pairs (x[d], x[d + half]) -> y, which may be x.
void turn(const float* x, const float* cosine, const float* sine, int64_t half, float* y) {
  const F32 d;
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const VecF32 lo = hn::LoadU(d, x + i), hi = hn::LoadU(d, x + half + i);
    const VecF32 c = hn::LoadU(d, cosine + i), s = hn::LoadU(d, sine + i);
    hn::StoreU(fma(lo, c, hn::Neg(hn::Mul(hi, s))), d, y + i);
    hn::StoreU(fma(hi, c, hn::Mul(lo, s)), d, y + half + i);
  }
  if (i < half) {
    const int64_t n = half - i;
    const VecF32 lo = load_n(x + i, n), hi = load_n(x + half + i, n);
    const VecF32 c = load_n(cosine + i, n), s = load_n(sine + i, n);
    store_n(fma(lo, c, hn::Neg(hn::Mul(hi, s))), y + i, n);
    store_n(fma(hi, c, hn::Mul(lo, s)), y + half + i, n);
  }
}

}  // namespace

void run_rope_simd(const Rope::Args& a, const Context& ctx) {
  const int64_t heads = a.x.dim(1), half = a.x.dim(2) / 2;
  parallel_rows(*ctx.threads, a.x.dim(0), heads * 2 * half, [&](int64_t t) {
    const float* cosine = a.table.row<float>(t);
    for (int64_t h = 0; h < heads; ++h) {
      turn(a.x.row<float>(t) + h * a.x.stride(1), cosine, cosine + half, half,
           a.y.row<float>(t) + h * a.y.stride(1));
    }
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_rope_simd);

Status rope_simd(const Rope::Args& a, Context& ctx) {
  HWY_DYNAMIC_DISPATCH(run_rope_simd)(a, ctx);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
