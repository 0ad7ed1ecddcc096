// rmsnorm/warp_per_row: one warp reduces one row (of one head), eight rows to a block. For f32, and
// for rows of any length.
//   grid ceil(rows * heads / 8)   block (32, 8)   shared memory: none
//   A lane adds up every 32nd square in ascending order, then the lanes' sums meet in a butterfly:
//   a row's bits depend on that row alone. The second pass finds the row in the L1 again.
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rmsnorm/impls.h"

namespace vlr::ops {
namespace {

constexpr int kRowsPerBlock = 8;

template <class T, class Weight>
__global__ void __launch_bounds__(cuda::kWarp* kRowsPerBlock)
    warp_per_row_kernel(cuda::Heads<const T> x, const Weight* weight,
                        cuda::Heads<T> y /* may be x */, int64_t count, int64_t heads, int64_t dim,
                        float eps) {
  const int64_t index = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (index >= count) return;  // a warp leaves as a whole, so warp_sum stays safe
  const int64_t row = index / heads, head = index % heads;
  const T* from = x.at(row, head);
  T* to = y.at(row, head);
  float sum = 0;
  for (int64_t i = threadIdx.x; i < dim; i += cuda::kWarp) {
    const float v = cuda::widen(from[i]);
    sum = fmaf(v, v, sum);
  }
  const float scale = 1 / sqrtf(cuda::warp_sum(sum) / static_cast<float>(dim) + eps);
  for (int64_t i = threadIdx.x; i < dim; i += cuda::kWarp) {
    const float normed = cuda::widen(cuda::narrow<T>(cuda::widen(from[i]) * scale));
    to[i] = cuda::narrow<T>(normed * cuda::widen(weight[i]));
  }
}

template <class T, class Weight>
void launch(const RmsNorm::Args& a, Context& ctx) {
  const int64_t heads = cuda::num_heads(a.x), count = a.x.dim(0) * heads;
  const auto blocks = static_cast<unsigned>((count + kRowsPerBlock - 1) / kRowsPerBlock);
  warp_per_row_kernel<<<blocks, dim3(cuda::kWarp, kRowsPerBlock), 0, ctx.stream>>>(
      cuda::heads_of<T>(a.x), a.weight.as<Weight>(), cuda::heads_of<T>(a.y), count, heads,
      a.x.dim(a.x.rank - 1), a.eps);
}

}  // namespace

Status rmsnorm_warp_per_row(const RmsNorm::Args& a, Context& ctx) {
  if (a.x.numel() == 0) return {};
  cuda::with_activation_and_weight(a.x.dtype, a.weight.dtype, [&](auto x, auto weight) {
    launch<decltype(x), decltype(weight)>(a, ctx);
  });
  return cuda::to_status(cudaGetLastError(), "rmsnorm/warp_per_row launch");
}

}  // namespace vlr::ops
