// rmsnorm_quantize/parts: rmsnorm into scratch, then quantize_rows, each by its first
// implementation, on either device: for f32, and for rows of any length.
#include <algorithm>

#include "kernels/core/scratch.h"
#include "kernels/quantize_rows/quantize_rows.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rmsnorm_quantize/impls.h"

namespace vlr::ops {
namespace {

struct Parts {
  RmsNorm::Args norm;
  QuantizeRows::Args quantize;
  std::span<std::byte> workspace;  ///< of either, one after the other
};

Parts lay_out(Scratch& scratch, const RmsNormQuantize::Args& a, const Context& ctx) {
  const Tensor y(scratch.take<std::byte>(a.x.bytes()), a.x.dtype, {a.x.dim(0), a.x.dim(1)});
  Parts p;
  p.norm = {.x = a.x, .weight = a.weight, .y = y, .eps = a.eps};
  p.quantize = {.x = y, .q = a.q, .scale = a.scale};
  // Without an implementation there is nothing to count: run() says what is missing.
  const auto norm = workspace_bytes<RmsNorm>(p.norm, ctx);
  const auto quantize = workspace_bytes<QuantizeRows>(p.quantize, ctx);
  const int64_t bytes =
      std::max(norm.has_value() ? *norm : 0, quantize.has_value() ? *quantize : 0);
  p.workspace = {scratch.take<std::byte>(bytes), static_cast<size_t>(bytes)};
  return p;
}

}  // namespace

int64_t rmsnorm_quantize_parts_workspace(const RmsNormQuantize::Args& a, const Context& ctx) {
  Scratch count;
  lay_out(count, a, ctx);
  return count.used();
}

Status rmsnorm_quantize_parts(const RmsNormQuantize::Args& a, Context& ctx) {
  Scratch scratch(ctx.workspace);
  const Parts p = lay_out(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("rmsnorm_quantize/parts"));
  Context part_ctx = ctx;
  part_ctx.workspace = p.workspace;
  VLR_RETURN_IF_ERROR(run<RmsNorm>(p.norm, part_ctx));
  return run<QuantizeRows>(p.quantize, part_ctx);
}

}  // namespace vlr::ops
