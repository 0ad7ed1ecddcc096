/// Element-wise kernels over [rows, dim]: how a grid shares out the rows, and what one thread does.
///   grid (row blocks, segments of a row)   block (threads along a row, rows)
/// A thread owns kMapUnroll vectors of one row and loads them all, of all operands, before it
/// computes: two operands of 16-byte vectors are 64 bytes in flight per thread, 100 KB and more per
/// multiprocessor.
#ifndef VLR_KERNELS_CUDA_MAP_ROWS_CUH_
#define VLR_KERNELS_CUDA_MAP_ROWS_CUH_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/core/integer.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/views.cuh"

namespace vlr::cuda {

constexpr int kMapThreads = 256;
constexpr int kMapUnroll = 2;

struct MapShape {
  dim3 grid, block;
};
/// As few segments as a row needs, of equal length; blocks of short rows take several.
inline MapShape map_shape(int64_t rows, int64_t dim, int vec) {
  constexpr int64_t kMaxSegments = 65535;  // of a grid; longer rows take another turn
  const int64_t vectors = std::max<int64_t>(1, ceil_div(dim, vec));
  const int64_t segments = std::min(ceil_div(vectors, kMapThreads * kMapUnroll), kMaxSegments);
  const int64_t along = std::min<int64_t>(ceil_div(vectors, segments * kMapUnroll), kMapThreads);
  const int64_t block_rows = kMapThreads / along;
  return {dim3(static_cast<unsigned>(ceil_div(rows, block_rows)), static_cast<unsigned>(segments)),
          dim3(static_cast<unsigned>(along), static_cast<unsigned>(block_rows))};
}

/// The row of this thread; there is nothing to do from `rows` on.
__device__ inline int64_t map_row_index() { return int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }

template <class T, int kCount>
struct MapVectors {
  Vec<T, kCount> at[kMapUnroll];
};

template <int kCount, class T>
__device__ inline MapVectors<T, kCount> map_load(const T* x, int64_t first, int64_t step,
                                                 int64_t dim) {
  MapVectors<T, kCount> v{};
#pragma unroll
  for (int u = 0; u < kMapUnroll; ++u) {
    if (first + u * step < dim) v.at[u] = Vec<T, kCount>::load(x + first + u * step);
  }
  return v;
}

template <int kCount, class Y, class F, class... X>
__device__ inline void map_store(Y* y, int64_t first, int64_t step, int64_t dim, F f,
                                 const MapVectors<X, kCount>&... x) {
#pragma unroll
  for (int u = 0; u < kMapUnroll; ++u) {
    float out[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = f(x.at[u][i]...);
    if (first + u * step < dim) Vec<Y, kCount>::of(out).store(y + first + u * step);
  }
}

/// y[i] = f(x[i]...) in f32, rounded to the type of y, for this thread's part of a row; y may be
/// one of x. dim is a multiple of kCount.
template <int kCount, class Y, class F, class... X>
__device__ inline void map_row(int64_t dim, Y* y, F f, const X*... x) {
  const int64_t step = int64_t{blockDim.x} * kCount, segment = step * kMapUnroll;
  for (int64_t first = blockIdx.y * segment + threadIdx.x * kCount; first < dim;
       first += gridDim.y * segment) {
    map_store<kCount>(y, first, step, dim, f, map_load<kCount>(x, first, step, dim)...);
  }
}

/// Calls launch(std::integral_constant<int, kCount>()) with the vector's elements or with 1.
template <class Launch>
void with_width(bool vectors, Launch&& launch) {
  if (vectors) {
    launch(std::integral_constant<int, kVec>());
  } else {
    launch(std::integral_constant<int, 1>());
  }
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_MAP_ROWS_CUH_
