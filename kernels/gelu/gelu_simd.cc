// gelu/simd: vectors of a row, rows over threads.
// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gelu/gelu_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "kernels/core/parallel_rows.h"
#include "kernels/core/simd.h"
#include "kernels/core/simd_math.h"
#include "kernels/gelu/impls.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

void run_gelu_simd(const Gelu::Args& a, const Context& ctx) {
  const int64_t dim = a.y.dim(1);
  parallel_rows(*ctx.threads, a.y.dim(0), dim, [&](int64_t r) {
    const float* x = a.x.row<float>(r);
    float* y = a.y.row<float>(r);
    if (a.kind == GeluKind::kTanh) {
      map(
          dim, y, [](VecF32 v) HWY_ATTR { return gelu_tanh(v); }, x);
    } else {
      map(
          dim, y, [](VecF32 v) HWY_ATTR { return gelu_erf(v); }, x);
    }
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_gelu_simd);

Status gelu_simd(const Gelu::Args& a, Context& ctx) {
  HWY_DYNAMIC_DISPATCH(run_gelu_simd)(a, ctx);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
