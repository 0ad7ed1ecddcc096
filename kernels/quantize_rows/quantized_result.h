/// An op's result in 8 bits: what ops that make it in one pass share, and the plain way to it, the
/// op into scratch and then quantize_rows.
#ifndef VLR_KERNELS_QUANTIZE_ROWS_QUANTIZED_RESULT_H_
#define VLR_KERNELS_QUANTIZE_ROWS_QUANTIZED_RESULT_H_

#include <algorithm>

#include "kernels/core/scratch.h"
#include "kernels/quantize_rows/quantize_rows.h"

namespace vlr::ops {

/// How far a code may be from the reference's, where the op's result may be `rel` of itself away. A
/// quotient is as far off as the value and its row's absmax together. Then both sides round it to a
/// code: to an integer, each by up to a half; to e4m3, each by up to 2^-4 of it, or half a step of
/// 2^-9 around zero. Scales are as far off as absmax, which tests hold them to.
inline Tolerance quantized_tolerance(double rel, DType codes) {
  if (codes == DType::kI8) return {.rel = 2 * rel, .abs = 1 + rel};
  return {.rel = 1.1 * (0x1p-3 + 2 * rel), .abs = 0x1p-9};
}

/// Each op runs by its first implementation, on either device.
template <class Op>
struct QuantizedResult {
  typename Op::Args op;  ///< y says what the result is like, and has no data
  Tensor q, scale;

  int64_t workspace(const Context& ctx) const {
    Scratch count;
    lay_out(count, ctx);
    return count.used();
  }

  /// `who` finds too little in ctx.workspace.
  Status run(std::string_view who, const Context& ctx) const {
    Scratch scratch(ctx.workspace);
    const Parts p = lay_out(scratch, ctx);
    VLR_RETURN_IF_ERROR(scratch.status(who));
    Context part = ctx;
    part.workspace = p.workspace;
    VLR_RETURN_IF_ERROR(ops::run<Op>(p.op, part));
    return ops::run<QuantizeRows>(p.quantize, part);
  }

 private:
  struct Parts {
    typename Op::Args op;
    QuantizeRows::Args quantize;
    std::span<std::byte> workspace;  // of either, one after the other
  };

  Parts lay_out(Scratch& scratch, const Context& ctx) const {
    Parts p{.op = op, .quantize = {}, .workspace = {}};
    p.op.y.data = scratch.take<std::byte>(op.y.bytes());
    p.quantize = {.x = p.op.y, .q = q, .scale = scale};
    // Without an implementation there is nothing to count: run() says what is missing.
    const auto first = workspace_bytes<Op>(p.op, ctx);
    const auto second = workspace_bytes<QuantizeRows>(p.quantize, ctx);
    const int64_t bytes =
        std::max(first.has_value() ? *first : 0, second.has_value() ? *second : 0);
    p.workspace = {scratch.take<std::byte>(bytes), static_cast<size_t>(bytes)};
    return p;
  }
};

}  // namespace vlr::ops

#endif  // VLR_KERNELS_QUANTIZE_ROWS_QUANTIZED_RESULT_H_
