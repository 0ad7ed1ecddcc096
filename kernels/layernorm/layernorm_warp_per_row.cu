// layernorm/warp_per_row: one warp reduces one row, eight rows to a block. For f32, and for rows of
// any length.
//   grid ceil(rows / 8)   block (32, 8)   shared memory: none
//   A lane adds up every 32nd element in ascending order, then the lanes' sums meet in a butterfly:
//   a row's bits depend on that row alone. The later passes find the row in the L1 again.
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/layernorm/impls.h"

namespace vlr::ops {
namespace {

constexpr int kRowsPerBlock = 8;

template <class T, class Weight>
__global__ void __launch_bounds__(cuda::kWarp* kRowsPerBlock)
    warp_per_row_kernel(cuda::Rows<const T> x, const Weight* weight, const Weight* bias,
                        cuda::Rows<T> y /* may be x */, int64_t rows, int64_t dim, float eps) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (row >= rows) return;  // a warp leaves as a whole, so warp_sum stays safe
  const T* from = x[row];
  T* to = y[row];
  float sum = 0, squares = 0;
  for (int64_t i = threadIdx.x; i < dim; i += cuda::kWarp) sum += cuda::widen(from[i]);
  const float mean = cuda::warp_sum(sum) / static_cast<float>(dim);
  for (int64_t i = threadIdx.x; i < dim; i += cuda::kWarp) {
    const float centred = cuda::widen(from[i]) - mean;
    squares = fmaf(centred, centred, squares);
  }
  const float scale = 1 / sqrtf(cuda::warp_sum(squares) / static_cast<float>(dim) + eps);
  for (int64_t i = threadIdx.x; i < dim; i += cuda::kWarp) {
    const float normed = (cuda::widen(from[i]) - mean) * scale;
    to[i] = cuda::narrow<T>(fmaf(normed, cuda::widen(weight[i]), cuda::widen(bias[i])));
  }
}

}  // namespace

Status layernorm_warp_per_row(const LayerNorm::Args& a, Context& ctx) {
  const int64_t rows = a.x.dim(0);
  if (rows == 0) return {};
  const auto blocks = static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock);
  cuda::with_activation_and_weight(a.x.dtype, a.weight.dtype, [&](auto x, auto weight) {
    using T = decltype(x);
    using Weight = decltype(weight);
    warp_per_row_kernel<<<blocks, dim3(cuda::kWarp, kRowsPerBlock), 0, ctx.stream>>>(
        cuda::rows_of<T>(a.x), a.weight.as<Weight>(), a.bias.as<Weight>(), cuda::rows_of<T>(a.y),
        rows, a.x.dim(1), a.eps);
  });
  return cuda::to_status(cudaGetLastError(), "layernorm/warp_per_row launch");
}

}  // namespace vlr::ops
