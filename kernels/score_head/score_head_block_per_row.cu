// score_head/block_per_row: one block reduces one row, to the sum of its squares and to its product
// with norm_weight * (w[0] - w[1]), in one pass.
//   grid B   block 256   shared memory: two floats a warp
//   A thread adds up every 256th element in ascending order, then row_sum's fixed order follows.
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/score_head/impls.h"

namespace vlr::ops {
namespace {

constexpr int kThreads = 256;

template <class T, class Norm, class W, bool kDifference>
__global__ void __launch_bounds__(kThreads)
    block_per_row_kernel(cuda::Rows<const T> x, const Norm* norm_weight, const W* w,
                         float* log_odds, int64_t dim, float eps) {
  __shared__ float partial[2][kThreads / cuda::kWarp];
  const T* row = x[blockIdx.x];
  float squares = 0, product = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
    const float v = cuda::widen(row[i]);
    const float yes_minus_no =
        kDifference ? cuda::widen(w[i]) : cuda::widen(w[i]) - cuda::widen(w[dim + i]);
    squares = fmaf(v, v, squares);
    product = fmaf(v * cuda::widen(norm_weight[i]), yes_minus_no, product);
  }
  squares = cuda::row_sum(squares, partial[0]);
  product = cuda::row_sum(product, partial[1]);
  if (threadIdx.x == 0)
    log_odds[blockIdx.x] = product / sqrtf(squares / static_cast<float>(dim) + eps);
}

}  // namespace

Status score_head_block_per_row(const ScoreHead::Args& a, Context& ctx) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1);
  if (rows == 0) return {};
  const auto launch = [&](auto x, auto norm_weight, auto w) {
    using T = decltype(x);
    using Norm = decltype(norm_weight);
    using W = decltype(w);
    const auto kernel = a.w.dim(0) == 1 ? block_per_row_kernel<T, Norm, W, true>
                                        : block_per_row_kernel<T, Norm, W, false>;
    kernel<<<static_cast<unsigned>(rows), kThreads, 0, ctx.stream>>>(
        cuda::rows_of<T>(a.x), a.norm_weight.as<Norm>(), a.w.as<W>(), a.log_odds.as<float>(), dim,
        a.eps);
  };
  cuda::with_activation_and_weight(a.x.dtype, a.norm_weight.dtype, [&](auto x, auto norm_weight) {
    if constexpr (sizeof(x) == 4) {
      cuda::with_element(a.w.dtype, [&](auto w) { launch(x, norm_weight, w); });
    } else {
      launch(x, norm_weight, x);
    }
  });
  return cuda::to_status(cudaGetLastError(), "score_head/block_per_row launch");
}

}  // namespace vlr::ops
