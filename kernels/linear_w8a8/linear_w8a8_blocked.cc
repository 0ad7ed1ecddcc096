// linear_w8a8/blocked:
//   i8      Both operands lie along k, and so do vectors: codes are widened to 16 bits on the way,
//           and pairs of products added to 32-bit sums. They are exact, so nothing that is chosen
//           here can change a bit.
//             task  kTaskRows rows of x (L2) times kTaskCols columns, over threads
//             tile  kTileRows x kTileCols vectors of sums in registers, over all of K
//   f8e4m3  Pieces of x and w as f32 in scratch, their product by linear/blocked into y, which then
//           meets the scales: a chain of fused multiply-adds over ascending k.

// clang-format off: foreach_target includes this file again, once per instruction set
#include "kernels/core/simd_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear_w8a8/linear_w8a8_blocked.cc"
#include "hwy/foreach_target.h"
// clang-format on

#include <algorithm>
#include <array>

#include "kernels/core/integer.h"
#include "kernels/core/load.h"
#include "kernels/core/parallel_rows.h"
#include "kernels/core/scratch.h"
#include "kernels/core/simd.h"
#include "kernels/linear/impls.h"
#include "kernels/linear_w8a8/impls.h"
#include "kernels/quant/eight_bit.h"

#ifndef VLR_KERNELS_LINEAR_W8A8_LINEAR_W8A8_BLOCKED_ONCE_
#define VLR_KERNELS_LINEAR_W8A8_LINEAR_W8A8_BLOCKED_ONCE_
namespace vlr::ops {
namespace {

constexpr int64_t kTaskRows = 64, kTaskCols = 64;

/// What follows the sum.
float finish(const LinearW8A8::Args& a, int64_t m, int64_t n, float acc) {
  const float y = acc * (a.x_scale.as<float>()[m] * a.w_scale.as<float>()[n]);
  return a.bias.defined() ? y + load_f32(a.bias, n) : y;
}

}  // namespace
}  // namespace vlr::ops
#endif  // VLR_KERNELS_LINEAR_W8A8_LINEAR_W8A8_BLOCKED_ONCE_

HWY_BEFORE_NAMESPACE();
namespace vlr::ops::HWY_NAMESPACE {
namespace {
using namespace vlr::HWY_NAMESPACE;  // NOLINT: simd.h's vocabulary for this target

using I16 = hn::ScalableTag<int16_t>;
using I8 = hn::Rebind<int8_t, I16>;
using VecI16 = hn::Vec<I16>;
using VecI32 = hn::Vec<I32>;
constexpr int64_t kStep = static_cast<int64_t>(hn::MaxLanes(I16()));

constexpr int kTileRows = 4, kTileCols = kRegisters == 32 ? 4 : 2;

HWY_INLINE VecI16 load_codes(const int8_t* p) { return hn::PromoteTo(I16(), hn::LoadU(I8(), p)); }

/// sums[r][c] = dot(x + r * k_dim, w[c]), each of k_dim codes.
template <int kRows>
void run_tile(const int8_t* x, const int8_t* const (&w)[kTileCols], int64_t k_dim,
              int32_t (&sums)[kTileRows][kTileCols]) {
  // The second half of the sums is for targets whose pairs of products lie in two vectors.
  VecI32 sum[kRows][kTileCols], other[kRows][kTileCols];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kTileCols; ++c) sum[r][c] = other[r][c] = hn::Zero(I32());
  }
  const auto add_products = [&](auto load) HWY_ATTR {
    VecI16 wv[kTileCols];
#pragma GCC unroll 4
    for (int c = 0; c < kTileCols; ++c) wv[c] = load(w[c]);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const VecI16 xv = load(x + r * k_dim);
#pragma GCC unroll 4
      for (int c = 0; c < kTileCols; ++c)
        sum[r][c] = hn::ReorderWidenMulAccumulate(I32(), xv, wv[c], sum[r][c], other[r][c]);
    }
  };
  int64_t k = 0;
  for (; k + kStep <= k_dim; k += kStep)
    add_products([&](const int8_t* row) HWY_ATTR { return load_codes(row + k); });
  if (k < k_dim) {
    add_products([&](const int8_t* row) HWY_ATTR {
      int8_t last[kStep] = {};
      std::copy(row + k, row + k_dim, last);
      return load_codes(last);
    });
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kTileCols; ++c)
      sums[r][c] = hn::GetLane(hn::SumOfLanes(I32(), hn::Add(sum[r][c], other[r][c])));
  }
}

/// Rows [m_begin, m_end) and columns [n_begin, n_end) of y.
void run_task(const LinearW8A8::Args& a, int64_t m_begin, int64_t m_end, int64_t n_begin,
              int64_t n_end) {
  constexpr decltype(&run_tile<1>) kTiles[] = {run_tile<1>, run_tile<2>, run_tile<3>, run_tile<4>};
  static_assert(std::size(kTiles) == kTileRows);
  const int64_t k_dim = a.x.dim(1);
  int32_t sums[kTileRows][kTileCols];
  for (int64_t n = n_begin; n < n_end; n += kTileCols) {
    const int64_t cols = std::min<int64_t>(kTileCols, n_end - n);
    const int8_t* w[kTileCols];  // past the right edge, its last column again
    for (int64_t c = 0; c < kTileCols; ++c) w[c] = a.w.row<int8_t>(n + std::min(c, cols - 1));
    for (int64_t m = m_begin; m < m_end; m += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, m_end - m);
      kTiles[rows - 1](a.x.row<int8_t>(m), w, k_dim, sums);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c)
          a.y.row<float>(m + r)[n + c] = finish(a, m + r, n + c, static_cast<float>(sums[r][c]));
      }
    }
  }
}

}  // namespace

void run_linear_w8a8_i8(const LinearW8A8::Args& a, const Context& ctx) {
  const int64_t m_rows = a.x.dim(0), n_cols = a.w.dim(0);
  const int64_t row_tasks = ceil_div(m_rows, kTaskRows);
  const int64_t col_tasks = ceil_div(n_cols, kTaskCols);
  ctx.threads->parallel_for(row_tasks * col_tasks, [&](int64_t task, int) {
    const int64_t m = task % row_tasks * kTaskRows, n = task / row_tasks * kTaskCols;
    run_task(a, m, std::min(m + kTaskRows, m_rows), n, std::min(n + kTaskCols, n_cols));
  });
}

}  // namespace vlr::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::ops {
HWY_EXPORT(run_linear_w8a8_i8);

namespace {

constexpr int64_t kPieceRows = 256;  // enough that what is decoded or packed anew is nothing

/// A piece of x and one of w as f32, and linear's scratch for them.
struct Pieces {
  float *x, *w;
  std::span<std::byte> linear;
};

Linear::Args linear_of(float* x, float* w, int64_t k_dim, const Tensor& y) {
  return {.x = ConstTensor(x, DType::kF32, {y.dim(0), k_dim}),
          .w = ConstTensor(w, DType::kF32, {y.dim(1), k_dim}),
          .bias = {},
          .y = y};
}

Pieces lay_out(Scratch& scratch, const LinearW8A8::Args& a, const Context& ctx) {
  const int64_t k_dim = a.x.dim(1);
  const int64_t rows = std::min(a.x.dim(0), kPieceRows), cols = std::min(a.w.dim(0), kPieceRows);
  Pieces p;
  p.x = scratch.take<float>(rows * k_dim);
  p.w = scratch.take<float>(cols * k_dim);
  const Linear::Args largest =
      linear_of(p.x, p.w, k_dim, Tensor(nullptr, DType::kF32, {rows, cols}));
  const int64_t bytes = linear_blocked_workspace(largest, ctx);
  p.linear = {scratch.take<std::byte>(bytes), static_cast<size_t>(bytes)};
  return p;
}

void decode_rows(const ConstTensor& codes, int64_t begin, int64_t rows, ThreadPool& threads,
                 float* out) {
  static const std::array<float, 256> kValues = [] {
    std::array<float, 256> values;
    for (size_t i = 0; i < 256; ++i) values[i] = e4m3_to_f32(static_cast<uint8_t>(i));
    return values;
  }();
  const int64_t k_dim = codes.dim(1);
  parallel_rows(threads, rows, k_dim, [&](int64_t r) {
    const auto* row = codes.row<uint8_t>(begin + r);
    std::transform(row, row + k_dim, out + r * k_dim, [](uint8_t code) { return kValues[code]; });
  });
}

Status run_f8(const LinearW8A8::Args& a, const Context& ctx, const Pieces& p) {
  const int64_t m_rows = a.x.dim(0), k_dim = a.x.dim(1), n_cols = a.w.dim(0);
  Context linear_ctx = ctx;
  linear_ctx.workspace = p.linear;
  for (int64_t m = 0; m < m_rows; m += kPieceRows) {
    const int64_t rows = std::min(kPieceRows, m_rows - m);
    decode_rows(a.x, m, rows, *ctx.threads, p.x);
    for (int64_t n = 0; n < n_cols; n += kPieceRows) {
      const int64_t cols = std::min(kPieceRows, n_cols - n);
      decode_rows(a.w, n, cols, *ctx.threads, p.w);
      const Tensor y = a.y.slice(0, m, rows).slice(1, n, cols);
      VLR_RETURN_IF_ERROR(linear_blocked(linear_of(p.x, p.w, k_dim, y), linear_ctx));
    }
    parallel_rows(*ctx.threads, rows, n_cols, [&](int64_t r) {
      float* y = a.y.row<float>(m + r);
      for (int64_t n = 0; n < n_cols; ++n) y[n] = finish(a, m + r, n, y[n]);
    });
  }
  return {};
}

}  // namespace

int64_t linear_w8a8_blocked_workspace(const LinearW8A8::Args& a, const Context& ctx) {
  if (a.x.dtype == DType::kI8) return 0;
  Scratch count;
  lay_out(count, a, ctx);
  return count.used();
}

Status linear_w8a8_blocked(const LinearW8A8::Args& a, Context& ctx) {
  if (a.x.dtype == DType::kI8) {
    HWY_DYNAMIC_DISPATCH(run_linear_w8a8_i8)(a, ctx);
    return {};
  }
  Scratch scratch(ctx.workspace);
  const Pieces pieces = lay_out(scratch, a, ctx);
  VLR_RETURN_IF_ERROR(scratch.status("linear_w8a8/blocked"));
  return run_f8(a, ctx, pieces);
}

}  // namespace vlr::ops
#endif  // HWY_ONCE
