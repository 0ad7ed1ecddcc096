// swiglu_quantize/parts: swiglu into scratch, then quantize_rows: for f32, and for rows of any
// length.
#include "kernels/quantize_rows/quantized_result.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/swiglu_quantize/impls.h"

namespace vlr::ops {
namespace {

QuantizedResult<SwiGlu> parts_of(const SwiGluQuantize::Args& a) {
  return {.op = {.gate = a.gate,
                 .up = a.up,
                 .y = Tensor(nullptr, a.gate.dtype, {a.gate.dim(0), a.gate.dim(1)})},
          .q = a.q,
          .scale = a.scale};
}

}  // namespace

int64_t swiglu_quantize_parts_workspace(const SwiGluQuantize::Args& a, const Context& ctx) {
  return parts_of(a).workspace(ctx);
}

Status swiglu_quantize_parts(const SwiGluQuantize::Args& a, Context& ctx) {
  return parts_of(a).run("swiglu_quantize/parts", ctx);
}

}  // namespace vlr::ops
