// vlr: op rmsnorm
// vlr: kernel second_rmsnorm
// vlr: grid x.0
// vlr: block 256
// vlr: shared 0
// vlr: args x x.s0 weight y y.s0 x.1 eps
// vlr: rank x 2
// vlr: dtype x bf16
//
// rmsnorm/second_rmsnorm: a block a row, for bf16 rows of two axes.
//   grid rows   block 256   shared memory: a sum a warp
//   Thread t adds up the squares of elements t, t + 256, t + 512 and so on. The sums of a warp are
//   added by shuffles, those of the warps one after the other: always in the same order.
#include <cuda_bf16.h>

constexpr int kThreads = 256, kWarp = 32, kWarps = kThreads / kWarp;

__device__ float block_sum(float v) {
  __shared__ float sums[kWarps];
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) v += __shfl_xor_sync(~0u, v, lanes);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = v;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += sums[w];
  return sum;
}

// No __restrict__: y may be x. Each thread reads its elements before it writes them.
extern "C" __global__ void __launch_bounds__(kThreads)
    second_rmsnorm(const __nv_bfloat16* x, long long x_stride, const __nv_bfloat16* weight,
                   __nv_bfloat16* y, long long y_stride, long long dim, float eps) {
  x += blockIdx.x * x_stride;
  y += blockIdx.x * y_stride;
  float squares = 0;
  for (long long i = threadIdx.x; i < dim; i += kThreads) {
    const float v = __bfloat162float(x[i]);
    squares = fmaf(v, v, squares);
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(dim) + eps);
  for (long long i = threadIdx.x; i < dim; i += kThreads) {
    // Rounded before the product with the weight, as the contract has it.
    const __nv_bfloat16 normed = __float2bfloat16_rn(__bfloat162float(x[i]) * scale);
    y[i] = __float2bfloat16_rn(__bfloat162float(normed) * __bfloat162float(weight[i]));
  }
}
