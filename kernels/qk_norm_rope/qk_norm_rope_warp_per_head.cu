// qk_norm_rope/warp_per_head: one warp normalises and turns one head, element by element: for f32,
// and for heads of any size and place.
//   grid ceil(T * H / 8)   block (32, 8)   shared memory: none
//   A lane adds up every 32nd square in ascending order, then the lanes' sums meet in a butterfly.
//   The second pass finds the head in the L1 again; a lane reads both of a pair before it writes.
#include "kernels/cuda/check.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/qk_norm_rope/impls.h"

namespace vlr::ops {
namespace {

constexpr int kHeadsPerBlock = 8;

/// The weights of queries and of keys may differ in dtype where x is f32.
struct Weights {
  const void* q;
  const void* k;
};

template <class T, class Q, class K>
__global__ void __launch_bounds__(cuda::kWarp* kHeadsPerBlock)
    warp_per_head_kernel(cuda::Heads<const T> x, Weights weights, const float* table,
                         cuda::Heads<T> y /* may be x */, int64_t count, int64_t heads,
                         int64_t num_q_heads, int64_t half, float eps) {
  const int64_t index = int64_t{blockIdx.x} * kHeadsPerBlock + threadIdx.y;
  if (index >= count) return;  // a warp leaves as a whole, so warp_sum stays safe
  const int64_t t = index / heads, head = index % heads;
  const T* from = x.at(t, head);
  T* to = y.at(t, head);
  const float* cosine = table + t * 2 * half;
  const float* sine = cosine + half;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < 2 * half; i += cuda::kWarp) {
    const float v = cuda::widen(from[i]);
    squares = fmaf(v, v, squares);
  }
  const float scale = 1 / sqrtf(cuda::warp_sum(squares) / static_cast<float>(2 * half) + eps);
  const auto weight = [&](int64_t i) {
    return head < num_q_heads ? cuda::widen(static_cast<const Q*>(weights.q)[i])
                              : cuda::widen(static_cast<const K*>(weights.k)[i]);
  };
  for (int64_t d = threadIdx.x; d < half; d += cuda::kWarp) {
    const float low = cuda::widen(from[d]) * scale * weight(d);
    const float high = cuda::widen(from[d + half]) * scale * weight(d + half);
    to[d] = cuda::narrow<T>(low * cosine[d] - high * sine[d]);
    to[d + half] = cuda::narrow<T>(high * cosine[d] + low * sine[d]);
  }
}

template <class T, class Q, class K>
void launch(const QkNormRope::Args& a, Context& ctx) {
  const int64_t heads = a.x.dim(1), count = a.x.dim(0) * heads;
  const auto blocks = static_cast<unsigned>((count + kHeadsPerBlock - 1) / kHeadsPerBlock);
  warp_per_head_kernel<T, Q, K><<<blocks, dim3(cuda::kWarp, kHeadsPerBlock), 0, ctx.stream>>>(
      cuda::heads_of<T>(a.x), Weights{a.q_weight.data, a.k_weight.data}, a.table.as<float>(),
      cuda::heads_of<T>(a.y), count, heads, a.num_q_heads, a.x.dim(2) / 2, a.eps);
}

}  // namespace

Status qk_norm_rope_warp_per_head(const QkNormRope::Args& a, Context& ctx) {
  if (a.x.numel() == 0) return {};
  cuda::with_activation_and_weight(a.x.dtype, a.q_weight.dtype, [&](auto x, auto q) {
    using T = decltype(x);
    if constexpr (sizeof(T) == 4) {
      cuda::with_element(a.k_weight.dtype,
                         [&](auto k) { launch<T, decltype(q), decltype(k)>(a, ctx); });
    } else {
      launch<T, T, T>(a, ctx);
    }
  });
  return cuda::to_status(cudaGetLastError(), "qk_norm_rope/warp_per_head launch");
}

}  // namespace vlr::ops
