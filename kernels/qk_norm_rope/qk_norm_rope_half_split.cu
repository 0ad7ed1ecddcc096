// qk_norm_rope/half_split: D / 16 lanes share a head, and each holds 8 neighbouring elements of its
// lower half and the 8 that turn with them, so a pair never leaves its lane. A warp takes kHeads
// heads per lane of one token.
//   grid ceil(T / tokens of a block)   block (32, warps of a token, tokens)   shared memory: none
//   The squares of a lane in ascending order, then a butterfly: a head's bits depend on D alone.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/qk_norm_rope/impls.h"

namespace vlr::ops {
namespace {

constexpr int kHeads = 2;     // of a lane, in flight at once
constexpr int kMaxWarps = 8;  // of a block
constexpr int kVec = cuda::kVec;

template <class T, int kLanes>
__global__ void __launch_bounds__(kMaxWarps* cuda::kWarp, 3)
    half_split_kernel(cuda::Heads<const T> x, const T* __restrict__ q_weight,
                      const T* __restrict__ k_weight, const float* __restrict__ table,
                      cuda::Heads<T> y /* may be x */, int64_t tokens, int heads, int num_q_heads,
                      float eps) {
  using Vec = cuda::Vec<T, kVec>;
  using TableVec = cuda::Vec<float, kVec>;
  constexpr int kHalf = kLanes * kVec;
  constexpr int kGroups = cuda::kWarp / kLanes;  // heads side by side in a warp
  const int64_t t = int64_t{blockIdx.x} * blockDim.z + threadIdx.z;
  if (t >= tokens) return;  // a warp leaves as a whole, so lane_sum stays safe
  const int group = static_cast<int>(threadIdx.x) / kLanes;
  const int d = static_cast<int>(threadIdx.x) % kLanes * kVec;
  const TableVec cosine = TableVec::load(table + t * 2 * kHalf + d);
  const TableVec sine = TableVec::load(table + t * 2 * kHalf + kHalf + d);
  const int step = static_cast<int>(blockDim.y) * kGroups;
  for (int first = static_cast<int>(threadIdx.y) * kGroups; first < heads; first += step * kHeads) {
    Vec low[kHeads], high[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int head = first + h * step + group;
      low[h] = high[h] = {};
      if (head < heads) {
        low[h] = Vec::load(x.at(t, head) + d);
        high[h] = Vec::load(x.at(t, head) + kHalf + d);
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int head = first + h * step + group;
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kVec; ++i) squares = fmaf(low[h][i], low[h][i], squares);
#pragma unroll
      for (int i = 0; i < kVec; ++i) squares = fmaf(high[h][i], high[h][i], squares);
      const float mean = cuda::lane_sum<kLanes>(squares) / static_cast<float>(2 * kHalf);
      const float scale = rsqrtf(mean + eps);
      if (head >= heads) continue;
      const T* weight = head < num_q_heads ? q_weight : k_weight;
      const Vec weight_low = Vec::load(weight + d), weight_high = Vec::load(weight + kHalf + d);
      float turned_low[kVec], turned_high[kVec];
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        const float l = low[h][i] * scale * weight_low[i], u = high[h][i] * scale * weight_high[i];
        turned_low[i] = fmaf(l, cosine[i], -__fmul_rn(u, sine[i]));
        turned_high[i] = fmaf(u, cosine[i], __fmul_rn(l, sine[i]));
      }
      Vec::of(turned_low).store(y.at(t, head) + d);
      Vec::of(turned_high).store(y.at(t, head) + kHalf + d);
    }
  }
}

template <class T, int kLanes>
void launch(const QkNormRope::Args& a, Context& ctx) {
  const int64_t tokens = a.x.dim(0), heads = a.x.dim(1);
  constexpr int64_t kWarpHeads = cuda::kWarp / kLanes * kHeads;
  const int64_t warps = std::min<int64_t>((heads + kWarpHeads - 1) / kWarpHeads, kMaxWarps);
  const int64_t block_tokens = kMaxWarps / warps;
  const dim3 block(cuda::kWarp, static_cast<unsigned>(warps), static_cast<unsigned>(block_tokens));
  const auto blocks = static_cast<unsigned>((tokens + block_tokens - 1) / block_tokens);
  half_split_kernel<T, kLanes><<<blocks, block, 0, ctx.stream>>>(
      cuda::heads_of<T>(a.x), a.q_weight.as<T>(), a.k_weight.as<T>(), a.table.as<float>(),
      cuda::heads_of<T>(a.y), tokens, static_cast<int>(heads), static_cast<int>(a.num_q_heads),
      a.eps);
}

bool in_whole_vectors(const ConstTensor& t) {
  return t.stride(0) % kVec == 0 && t.stride(1) % kVec == 0;
}

}  // namespace

/// 16 bits; D a power of two from 16 to 512; heads that start at multiples of 16 bytes, as they do
/// where the tensor and its columns do.
bool qk_norm_rope_in_half_splits(const QkNormRope::Args& a, const Context&) {
  const int64_t dim = a.x.dim(2);
  return dtype_bytes(a.x.dtype) == 2 && dim >= 16 && dim <= 512 && (dim & (dim - 1)) == 0 &&
         in_whole_vectors(a.x) && in_whole_vectors(a.y);
}

Status qk_norm_rope_half_split(const QkNormRope::Args& a, Context& ctx) {
  if (a.x.numel() == 0) return {};
  for (const ConstTensor& t : {a.x, a.q_weight, a.k_weight, a.table, ConstTensor(a.y)}) {
    if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0)
      return {Code::kInternal, "qk_norm_rope/half_split: operands must start at 16 bytes"};
  }
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    switch (a.x.dim(2)) {
      case 16:
        return launch<T, 1>(a, ctx);
      case 32:
        return launch<T, 2>(a, ctx);
      case 64:
        return launch<T, 4>(a, ctx);
      case 128:
        return launch<T, 8>(a, ctx);
      case 256:
        return launch<T, 16>(a, ctx);
      default:
        return launch<T, 32>(a, ctx);
    }
  });
  return cuda::to_status(cudaGetLastError(), "qk_norm_rope/half_split launch");
}

}  // namespace vlr::ops
