// swiglu/simd: vectors of a row, rows over threads; silu in f32, then the product.
// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/swiglu/swiglu_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "kernels/core/parallel_rows.h"
#include "kernels/core/simd.h"
#include "kernels/core/simd_math.h"
#include "kernels/swiglu/impls.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

void run_swiglu_simd(const SwiGlu::Args& a, const Context& ctx) {
  const int64_t dim = a.y.dim(1);
  parallel_rows(*ctx.threads, a.y.dim(0), dim, [&](int64_t t) {
    map(
        dim, a.y.row<float>(t),
        [](VecF32 gate, VecF32 up) HWY_ATTR { return hn::Mul(silu(gate), up); },
        a.gate.row<float>(t), a.up.row<float>(t));
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_swiglu_simd);

Status swiglu_simd(const SwiGlu::Args& a, Context& ctx) {
  HWY_DYNAMIC_DISPATCH(run_swiglu_simd)(a, ctx);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
