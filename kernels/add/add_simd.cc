// add/simd: vectors of a row, rows over threads.
// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/add/add_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include "kernels/add/impls.h"
#include "kernels/core/parallel_rows.h"
#include "kernels/core/simd.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

void run_add_simd(const Add::Args& a, const Context& ctx) {
  const int64_t dim = a.y.dim(1);
  parallel_rows(*ctx.threads, a.y.dim(0), dim, [&](int64_t r) {
    map(
        dim, a.y.row<float>(r), [](VecF32 x, VecF32 y) HWY_ATTR { return hn::Add(x, y); },
        a.a.row<float>(r), a.b.row<float>(r));
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_add_simd);

Status add_simd(const Add::Args& a, Context& ctx) {
  HWY_DYNAMIC_DISPATCH(run_add_simd)(a, ctx);
  return {};
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
