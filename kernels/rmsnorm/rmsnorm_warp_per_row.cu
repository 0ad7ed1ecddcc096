// rmsnorm/warp_per_row: one warp reduces one row (of one head), eight rows to a block.
//   grid ceil(rows * heads / 8)   block (32, 8)   shared memory: none
//   A lane adds up every 32nd square in ascending order, then the lanes' sums meet in a butterfly:
//   a row's bits depend on that row alone. The second pass finds the row in the L1 again.
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rmsnorm/impls.h"

namespace vlr::ops {
namespace {

constexpr int kRowsPerBlock = 8;

/// Rows of a tensor of two or three axes, without the last one.
struct Rows {
  float* data;
  int64_t stride, head_stride;
};

template <class Weight>
__global__ void __launch_bounds__(cuda::kWarp* kRowsPerBlock)
    warp_per_row_kernel(Rows x, const Weight* weight, Rows y /* may be x */, int64_t count,
                        int heads, int dim, float eps) {
  const int64_t index = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.y;
  if (index >= count) return;  // a warp leaves as a whole, so warp_sum stays safe
  const int64_t row = index / heads, head = index % heads;
  const float* from = x.data + row * x.stride + head * x.head_stride;
  float* to = y.data + row * y.stride + head * y.head_stride;
  float sum = 0;
  for (int i = threadIdx.x; i < dim; i += cuda::kWarp) sum = fmaf(from[i], from[i], sum);
  const float scale = 1 / sqrtf(cuda::warp_sum(sum) / static_cast<float>(dim) + eps);
  for (int i = threadIdx.x; i < dim; i += cuda::kWarp)
    to[i] = from[i] * scale * cuda::widen(weight[i]);
}

template <class T>
Rows rows_of(const T& t) {
  return {static_cast<float*>(const_cast<void*>(static_cast<const void*>(t.data))), t.stride(0),
          t.rank == 3 ? t.stride(1) : 0};
}

}  // namespace

Status rmsnorm_warp_per_row(const RmsNorm::Args& a, Context& ctx) {
  const int64_t heads = a.x.rank == 3 ? a.x.dim(1) : 1, count = a.x.dim(0) * heads;
  if (count == 0) return {};
  const auto blocks = static_cast<unsigned>((count + kRowsPerBlock - 1) / kRowsPerBlock);
  cuda::with_element(a.weight.dtype, [&](auto element) {
    using Weight = decltype(element);
    warp_per_row_kernel<Weight><<<blocks, dim3(cuda::kWarp, kRowsPerBlock), 0, ctx.stream>>>(
        rows_of(a.x), a.weight.as<Weight>(), rows_of(a.y), count, static_cast<int>(heads),
        static_cast<int>(a.x.dim(a.x.rank - 1)), a.eps);
  });
  return cuda::to_status(cudaGetLastError(), "rmsnorm/warp_per_row launch");
}

}  // namespace vlr::ops
