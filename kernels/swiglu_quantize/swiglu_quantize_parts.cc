// swiglu_quantize/parts: swiglu into scratch, then quantize_rows, each by its first
// implementation, on either device: for f32, and for rows of any length.
#include <algorithm>

#include "kernels/core/scratch.h"
#include "kernels/quantize_rows/quantize_rows.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/swiglu_quantize/impls.h"

namespace vlr::ops {
namespace {

struct Parts {
  SwiGlu::Args swiglu;
  QuantizeRows::Args quantize;
  std::span<std::byte> workspace;  ///< of either, one after the other
};

Parts lay_out(Scratch& scratch, const SwiGluQuantize::Args& a, const Context& ctx) {
  const Tensor y(scratch.take<std::byte>(a.gate.bytes()), a.gate.dtype,
                 {a.gate.dim(0), a.gate.dim(1)});
  Parts p;
  p.swiglu = {.gate = a.gate, .up = a.up, .y = y};
  p.quantize = {.x = y, .q = a.q, .scale = a.scale};
  // Without an implementation there is nothing to count: run() says what is missing.
  const auto swiglu = workspace_bytes<SwiGlu>(p.swiglu, ctx);
  const auto quantize = workspace_bytes<QuantizeRows>(p.quantize, ctx);
  const int64_t bytes =
      std::max(swiglu.has_value() ? *swiglu : 0, quantize.has_value() ? *quantize : 0);
  p.workspace = {scratch.take<std::byte>(bytes), static_cast<size_t>(bytes)};
  return p;
}

}  // namespace

int64_t swiglu_quantize_parts_workspace(const SwiGluQuantize::Args& a, const Context& ctx) {
  Scratch count;
  lay_out(count, a, ctx);
  return count.used();
}

Status swiglu_quantize_parts(const SwiGluQuantize::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  const Parts p = lay_out(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("swiglu_quantize/parts"));
  Context part_ctx = ctx;
  part_ctx.workspace = p.workspace;
  VLR_RETURN_IF_ERROR(run<SwiGlu>(p.swiglu, part_ctx));
  return run<QuantizeRows>(p.quantize, part_ctx);
}

}  // namespace vlr::ops
