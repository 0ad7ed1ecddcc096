// rope/pairs: a thread turns kCount neighbouring pairs of up to kHeads heads of one token, with
// cosines and sines that it reads once. kCount is 8 (16 bytes of each half), 4 or 1, by what the
// head dimension and the strides allow: heads of 72 are nine threads of 4 pairs.
//   grid ceil(T / tokens of a block)   block (threads of a head, head groups, tokens)
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/rope/impls.h"

namespace vlr::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;

template <class T, int kCount>
__global__ void __launch_bounds__(kThreads)
    pairs_kernel(cuda::Heads<const T> x, const float* table, cuda::Heads<T> y /* may be x */,
                 int64_t tokens, int64_t heads, int64_t half) {
  using Vec = cuda::Vec<T, kCount>;
  using TableVec = cuda::Vec<float, kCount>;
  const int64_t t = int64_t{blockIdx.x} * blockDim.z + threadIdx.z;
  if (t >= tokens) return;
  for (int64_t d = threadIdx.x * kCount; d < half; d += blockDim.x * kCount) {
    const TableVec cosine = TableVec::load(table + t * 2 * half + d);
    const TableVec sine = TableVec::load(table + t * 2 * half + half + d);
    for (int64_t first = threadIdx.y; first < heads; first += blockDim.y * kHeads) {
      Vec low[kHeads], high[kHeads];
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const int64_t head = first + h * blockDim.y;
        if (head >= heads) break;
        low[h] = Vec::load(x.at(t, head) + d);
        high[h] = Vec::load(x.at(t, head) + half + d);
      }
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const int64_t head = first + h * blockDim.y;
        if (head >= heads) break;
        float turned_low[kCount], turned_high[kCount];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          // Named operations: left to the compiler, what is fused might depend on kCount.
          turned_low[i] = fmaf(low[h][i], cosine[i], -__fmul_rn(high[h][i], sine[i]));
          turned_high[i] = fmaf(high[h][i], cosine[i], __fmul_rn(low[h][i], sine[i]));
        }
        Vec::of(turned_low).store(y.at(t, head) + d);
        Vec::of(turned_high).store(y.at(t, head) + half + d);
      }
    }
  }
}

template <class T, int kCount>
void launch(const Rope::Args& a, Context& ctx) {
  const int64_t tokens = a.x.dim(0), heads = a.x.dim(1), half = a.x.dim(2) / 2;
  const int64_t along = std::min<int64_t>((half + kCount - 1) / kCount, kThreads);
  const int64_t groups = std::min<int64_t>((heads + kHeads - 1) / kHeads, kThreads / along);
  const int64_t block_tokens = std::min<int64_t>(kThreads / (along * groups), 64);  // CUDA's limit
  const dim3 block(static_cast<unsigned>(along), static_cast<unsigned>(groups),
                   static_cast<unsigned>(block_tokens));
  const auto blocks = static_cast<unsigned>((tokens + block_tokens - 1) / block_tokens);
  pairs_kernel<T, kCount><<<blocks, block, 0, ctx.stream>>>(
      cuda::heads_of<T>(a.x), a.table.as<float>(), cuda::heads_of<T>(a.y), tokens, heads, half);
}

/// Whether the two halves of every head are whole vectors of `count`.
bool halves_in_vectors(const Rope::Args& a, int count) {
  return a.x.dim(2) / 2 % count == 0 && cuda::in_vectors({a.x, a.y}, count) &&
         cuda::in_vectors({a.table}, 4);
}

}  // namespace

Status rope_pairs(const Rope::Args& a, Context& ctx) {
  if (a.x.numel() == 0) return {};
  cuda::with_element(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    if (halves_in_vectors(a, 8)) return launch<T, 8>(a, ctx);
    if (halves_in_vectors(a, 4)) return launch<T, 4>(a, ctx);
    launch<T, 1>(a, ctx);
  });
  return cuda::to_status(cudaGetLastError(), "rope/pairs launch");
}

}  // namespace vlr::ops
