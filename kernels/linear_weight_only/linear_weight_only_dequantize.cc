// linear_weight_only/dequantize: rows of the weight as 16-bit numbers in scratch, then `linear`, by
// whichever of its implementations runs: the library's speed, for one more pass over the weight.
//
// The scratch is one of the two places of ctx.ring, which a stream of its own fills while the
// product before still runs; a weight that is larger than a place goes part by part, which changes
// no sum. Without a ring the scratch is the workspace, and everything happens in order.
#include <algorithm>

#include "kernels/core/integer.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/weight_ring.h"
#include "kernels/dequantize/dequantize.h"
#include "kernels/linear_weight_only/impls.h"

namespace vlr::ops {
namespace {

constexpr int64_t kScratchAlign = 256;
constexpr int64_t kRowStep = 64;  // parts are multiples of this many rows

/// Rows of a part whose numbers fit into `bytes`.
int64_t rows_in(const LinearWeightOnly::Args& a, int64_t bytes) {
  const int64_t row_bytes = a.w.cols * dtype_bytes(a.x.dtype), n = a.y.dim(1);
  const int64_t rows = bytes / row_bytes;
  return rows >= n ? n : rows / kRowStep * kRowStep;
}

/// Output columns [begin, begin + count): `linear` on that part of the weight.
Linear::Args part_of(const LinearWeightOnly::Args& a, int64_t begin, int64_t count,
                     const void* weight) {
  Linear::Args part{.x = a.x,
                    .w = ConstTensor(weight, a.x.dtype, {count, a.w.cols}, a.x.device),
                    .bias = a.bias,
                    .residual = a.residual,
                    .y = a.y.slice(1, begin, count),
                    .activation = a.activation};
  if (a.bias.defined()) part.bias = a.bias.slice(0, begin, count);
  if (a.residual.defined()) part.residual = a.residual.slice(1, begin, count);
  return part;
}

int64_t scratch_bytes(const LinearWeightOnly::Args& a) {
  const int64_t whole = a.y.dim(1) * a.w.cols * dtype_bytes(a.x.dtype);
  return round_up(std::min(whole, cuda::kWeightRingPlace), kScratchAlign);
}

}  // namespace

int64_t linear_weight_only_dequantize_workspace(const LinearWeightOnly::Args& a,
                                                const Context& ctx) {
  const auto product = workspace_bytes<Linear>(part_of(a, 0, a.y.dim(1), nullptr), ctx);
  return (product ? *product : 0) + (ctx.ring ? 0 : scratch_bytes(a) + kScratchAlign);
}

Status linear_weight_only_dequantize(const LinearWeightOnly::Args& a, Context& ctx) {
  if (a.x.dim(0) == 0) return {};
  const auto decode_rows = [&](int64_t begin, int64_t count, std::byte* to,
                               CUstream_st* stream) -> Status {
    Context side = ctx;
    side.stream = stream;
    return run<Dequantize>({.w = a.w,
                            .first_row = a.first_row + begin,
                            .y = Tensor(to, a.x.dtype, {count, a.w.cols}, a.x.device)},
                           side);
  };
  const int64_t n = a.y.dim(1), bytes = ctx.ring ? ctx.ring->place_bytes() : scratch_bytes(a),
                step = rows_in(a, bytes);
  if (step == 0)
    return {Code::kInternal, "linear_weight_only/dequantize: the scratch holds no 64 rows"};
  if (!ctx.ring) {
    const std::span<std::byte> all = ctx.workspace;
    const auto past = reinterpret_cast<uintptr_t>(all.data()) % kScratchAlign;
    std::byte* const scratch = all.data() + (past ? kScratchAlign - past : 0);
    Context product = ctx;
    product.workspace = all.subspan(static_cast<size_t>(scratch - all.data() + bytes));
    for (int64_t begin = 0; begin < n; begin += step) {
      const int64_t count = std::min(step, n - begin);
      VLR_RETURN_IF_ERROR(decode_rows(begin, count, scratch, ctx.stream));
      VLR_RETURN_IF_ERROR(run<Linear>(part_of(a, begin, count, scratch), product));
    }
    return {};
  }
  const bool overlap = !(ctx.blas && ctx.blas->measuring());
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t count = std::min(step, n - begin);
    VLR_RETURN_IF_ERROR(ctx.ring->run(
        ctx.stream, overlap,
        [&](std::byte* to, CUstream_st* stream) { return decode_rows(begin, count, to, stream); },
        [&](const std::byte* weight) {
          return run<Linear>(part_of(a, begin, count, weight), ctx);
        }));
  }
  return {};
}

}  // namespace vlr::ops
