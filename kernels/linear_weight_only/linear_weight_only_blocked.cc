// linear_weight_only/blocked: some rows of the weight at a time, decoded to f32, then
// linear/blocked into their columns of y. It packs x anew for every piece: what that costs against
// the piece's product is one part in its number of rows.

#include <algorithm>

#include "kernels/core/scratch.h"
#include "kernels/dequantize/impls.h"
#include "kernels/linear/impls.h"
#include "kernels/linear_weight_only/impls.h"

namespace vlr::ops {
namespace {

constexpr int64_t kPieceBytes = 8 << 20;  // of decoded weights, which stay in a cache
constexpr int64_t kMinPieceRows = 64;     // a thread's columns in linear/blocked, or more

int64_t piece_rows(const LinearWeightOnly::Args& a) {
  return std::min(a.y.dim(1), std::max(kMinPieceRows, kPieceBytes / (4 * a.w.cols)));
}

/// The product with `count` decoded rows, which make columns from `n` on.
Linear::Args product(const LinearWeightOnly::Args& a, const float* rows, int64_t n, int64_t count) {
  return {.x = a.x,
          .w = ConstTensor(rows, DType::kF32, {count, a.w.cols}),
          .bias = a.bias.defined() ? a.bias.slice(0, n, count) : ConstTensor(),
          .y = a.y.slice(1, n, count)};
}

}  // namespace

int64_t linear_weight_only_blocked_workspace(const LinearWeightOnly::Args& a, const Context& ctx) {
  const int64_t rows = piece_rows(a);
  Scratch count;
  count.take<float>(rows * a.w.cols);
  return count.used() + linear_blocked_workspace(product(a, nullptr, 0, rows), ctx);
}

Status linear_weight_only_blocked(const LinearWeightOnly::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  const int64_t rows = piece_rows(a);
  Scratch scratch(ctx.workspace);
  float* piece = scratch.take<float>(rows * a.w.cols);
  VLR_RETURN_IF_ERROR(scratch.status("linear_weight_only/blocked"));
  Context rest = ctx;
  rest.workspace = ctx.workspace.subspan(static_cast<size_t>(scratch.used()));
  for (int64_t n = 0; n < a.y.dim(1); n += rows) {
    const int64_t count = std::min(rows, a.y.dim(1) - n);
    const Tensor decoded(piece, DType::kF32, {count, a.w.cols});
    VLR_RETURN_IF_ERROR(
        dequantize_threads({.w = a.w, .first_row = a.first_row + n, .y = decoded}, ctx));
    VLR_RETURN_IF_ERROR(linear_blocked(product(a, piece, n, count), rest));
  }
  return {};
}

}  // namespace vlr::ops
