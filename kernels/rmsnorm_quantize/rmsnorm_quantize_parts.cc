// rmsnorm_quantize/parts: rmsnorm into scratch, then quantize_rows: for f32, and for rows of any
// length.
#include "kernels/quantize_rows/quantized_result.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rmsnorm_quantize/impls.h"

namespace vlr::ops {
namespace {

QuantizedResult<RmsNorm> parts_of(const RmsNormQuantize::Args& a) {
  return {.op = {.x = a.x,
                 .weight = a.weight,
                 .y = Tensor(nullptr, a.x.dtype, {a.x.dim(0), a.x.dim(1)}),
                 .eps = a.eps},
          .q = a.q,
          .scale = a.scale};
}

}  // namespace

int64_t rmsnorm_quantize_parts_workspace(const RmsNormQuantize::Args& a, const Context& ctx) {
  return parts_of(a).workspace(ctx);
}

Status rmsnorm_quantize_parts(const RmsNormQuantize::Args& a, Context& ctx) {
  return parts_of(a).run("rmsnorm_quantize/parts", ctx);
}

}  // namespace vlr::ops
