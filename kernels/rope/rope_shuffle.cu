// rope/shuffle: a lane holds one vector of 16 bytes of a head and receives the elements that turn
// with its own from the lanes that hold them, so that a warp reads and writes whole heads one
// behind another. n = D / 8 lanes share a head, floor(32 / n) heads stand side by side in a warp,
// and a warp takes up to kGroups such groups of one token, with cosines and sines that it reads
// once.
//   grid ceil(T / tokens of a block)   block (32, warps of a token, tokens)   shared memory: none
//   Where n is odd (heads of 72), a half of a head ends within a vector: the partners of a vector's
//   first four elements are the last four of one lane, those of its last four the first of another.
//   The arithmetic is that of rope/pairs, and so are the bits.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/check.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rope/impls.h"

namespace vlr::ops {
namespace {

constexpr int kGroups = 6;    // of heads, in flight at once: 2.6 KB a warp for heads of 72
constexpr int kMaxWarps = 8;  // of a block
constexpr int kVec = cuda::kVec;

/// Four elements of a vector, in two words.
struct Quarter {
  float4 cosine, sine;  // the sine with the sign that the partner's product has
};
__device__ inline Quarter load_quarter(const float* cosines, int half, int first) {
  const bool upper = first >= half;
  const float* p = cosines + (upper ? first - half : first);
  Quarter q{*reinterpret_cast<const float4*>(p), *reinterpret_cast<const float4*>(p + half)};
  if (!upper) q.sine = {-q.sine.x, -q.sine.y, -q.sine.z, -q.sine.w};
  return q;
}

/// Two neighbouring elements and their two partners; products and sum as in rope/pairs.
template <class T>
__device__ inline uint32_t turn(uint32_t x, uint32_t partner, float cos0, float cos1, float sin0,
                                float sin1) {
  using Pair = cuda::Pair<T>;
  return Pair::pack(fmaf(Pair::low(x), cos0, __fmul_rn(Pair::low(partner), sin0)),
                    fmaf(Pair::high(x), cos1, __fmul_rn(Pair::high(partner), sin1)));
}

template <class T, bool kOdd>
__global__ void __launch_bounds__(kMaxWarps* cuda::kWarp, 4)
    shuffle_kernel(cuda::Heads<const T> x, const float* __restrict__ table,
                   cuda::Heads<T> y /* may be x */, int64_t tokens, int heads, int n) {
  using Vec = cuda::Vec<T, kVec>;
  const int64_t t = int64_t{blockIdx.x} * blockDim.z + threadIdx.z;
  if (t >= tokens) return;  // a warp leaves as a whole, so the shuffles stay safe
  const int lane = static_cast<int>(threadIdx.x), beside = cuda::kWarp / n;
  const int own = lane / n, j = lane - own * n;  // lanes past the last whole head are idle
  const int half = n * kVec / 2, h = n / 2;
  const float* cosines = table + t * 2 * half;
  const Quarter first = load_quarter(cosines, half, j * kVec);
  const Quarter last = load_quarter(cosines, half, j * kVec + kVec / 2);
  // The lanes that hold the partners of the first and of the last four elements.
  const int from_first = lane - j + (kOdd ? (j <= h ? j + h : j - h - 1) : (j < h ? j + h : j - h));
  const int from_last = lane - j + (kOdd ? (j < h ? j + h + 1 : j - h) : (j < h ? j + h : j - h));
  const int step = static_cast<int>(blockDim.y) * beside;
  const int64_t from_step = step * x.head_stride, to_step = step * y.head_stride;
  const int first_head = static_cast<int>(threadIdx.y) * beside + own;
  const T* from = x.at(t, first_head) + j * kVec;
  T* to = y.at(t, first_head) + j * kVec;
  const int end = own < beside ? heads : 0;
  // All lanes of a warp go round as often, and so meet in every shuffle.
  for (int head = first_head; head - own < heads; head += step * kGroups) {
    Vec v[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      v[g] = {};
      if (head + g * step < end) v[g] = Vec::load(from);
      from += from_step;
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      constexpr int kFirst = kOdd ? 2 : 0, kLast = kOdd ? 0 : 2;  // words of the partners
      uint32_t partner[4];
#pragma unroll
      for (int w = 0; w < 2; ++w) {
        partner[w] = __shfl_sync(0xffffffffu, v[g].word[kFirst + w], from_first);
        partner[2 + w] = __shfl_sync(0xffffffffu, v[g].word[kLast + w], from_last);
      }
      const Vec turned = {
          turn<T>(v[g].word[0], partner[0], first.cosine.x, first.cosine.y, first.sine.x,
                  first.sine.y),
          turn<T>(v[g].word[1], partner[1], first.cosine.z, first.cosine.w, first.sine.z,
                  first.sine.w),
          turn<T>(v[g].word[2], partner[2], last.cosine.x, last.cosine.y, last.sine.x, last.sine.y),
          turn<T>(v[g].word[3], partner[3], last.cosine.z, last.cosine.w, last.sine.z, last.sine.w),
      };
      if (head + g * step < end) turned.store(to);
      to += to_step;
    }
  }
}

template <class T>
void launch(const Rope::Args& a, Context& ctx) {
  const int64_t tokens = a.x.dim(0), heads = a.x.dim(1), n = a.x.dim(2) / kVec;
  const int64_t warp_heads = cuda::kWarp / n * kGroups;
  const int64_t warps = std::min<int64_t>((heads + warp_heads - 1) / warp_heads, kMaxWarps);
  const int64_t block_tokens = kMaxWarps / warps;
  const dim3 block(cuda::kWarp, static_cast<unsigned>(warps), static_cast<unsigned>(block_tokens));
  const auto blocks = static_cast<unsigned>((tokens + block_tokens - 1) / block_tokens);
  const auto kernel = n % 2 != 0 ? shuffle_kernel<T, true> : shuffle_kernel<T, false>;
  kernel<<<blocks, block, 0, ctx.stream>>>(cuda::heads_of<T>(a.x), a.table.as<float>(),
                                           cuda::heads_of<T>(a.y), tokens, static_cast<int>(heads),
                                           static_cast<int>(n));
}

bool in_whole_vectors(const ConstTensor& t) {
  return t.stride(0) % kVec == 0 && t.stride(1) % kVec == 0;
}

}  // namespace

/// 16 bits; heads of up to a warp of vectors, at multiples of 16 bytes. Others have the same bits by
/// rope/pairs.
bool rope_in_shuffles(const Rope::Args& a, const Context&) {
  const int64_t dim = a.x.dim(2);
  for (const void* p : {a.x.data, a.table.data, static_cast<const void*>(a.y.data)}) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) return false;
  }
  return dtype_bytes(a.x.dtype) == 2 && dim > 0 && dim % kVec == 0 && dim <= cuda::kWarp * kVec &&
         in_whole_vectors(a.x) && in_whole_vectors(a.y);
}

Status rope_shuffle(const Rope::Args& a, Context& ctx) {
  if (a.x.numel() == 0) return {};
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) { launch<decltype(element)>(a, ctx); });
  return cuda::to_status(cudaGetLastError(), "rope/shuffle launch");
}

}  // namespace vlr::ops
