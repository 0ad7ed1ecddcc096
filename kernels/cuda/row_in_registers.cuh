/// Norms: a row is read once and stays in the registers of the threads that share it.
///   block (threads of a row, rows)   thread x owns the vectors x, x + blockDim.x, ... of its row
/// A row of dim elements has row_shape(dim).warps warps, whatever the number of rows and however
/// they are laid out: the order of its sums, and so their bits, depends on dim alone.
#ifndef VLR_KERNELS_CUDA_ROW_IN_REGISTERS_CUH_
#define VLR_KERNELS_CUDA_ROW_IN_REGISTERS_CUH_

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace vlr::cuda {

constexpr int kRowMaxVectors = 5;  ///< of a thread; 5 has a row of 1152 fill its warp best
constexpr int kRowMaxWarps = 8;    ///< of a block
constexpr int kRowMaxThreads = kRowMaxWarps * kWarp;
constexpr int64_t kRowMaxDim = int64_t{kRowMaxThreads} * kRowMaxVectors * kVec;
/// 24 warps to a multiprocessor have 50 KB or more on their way, twice what memory's latency asks
/// for; elements one by one need more registers than that leaves.
template <bool kAligned>
constexpr int kRowMinBlocks = kAligned ? 3 : 1;

struct RowShape {
  int warps;       ///< that share a row
  int vectors;     ///< of each of their threads
  int block_rows;  ///< 4 warps to a block, or as many as a row has
};
constexpr RowShape row_shape(int64_t dim) {
  const int64_t vectors = (dim + kVec - 1) / kVec;
  int warps = 1;
  while (vectors > int64_t{warps} * kWarp * kRowMaxVectors) warps *= 2;
  const int64_t threads = int64_t{warps} * kWarp;
  return {warps, static_cast<int>((vectors + threads - 1) / threads), warps < 4 ? 4 / warps : 1};
}
static_assert(row_shape(4096).warps == 4 && row_shape(4096).vectors == 4);
static_assert(row_shape(1152).warps == 1 && row_shape(1152).vectors == 5);
static_assert(row_shape(kRowMaxDim).warps == kRowMaxWarps);

/// What a thread holds of a row of 16-bit elements; zeros past its end. Without kAligned the
/// elements are moved one by one, to and from the same places.
template <class T, int kVectors, bool kAligned>
struct RowPart {
  Vec<T, kVec> at[kVectors];

  __device__ static int first(int v) {
    return (static_cast<int>(threadIdx.x) + v * static_cast<int>(blockDim.x)) * kVec;
  }

  /// Whether element i of vector v is one of the row's.
  __device__ static bool inside(int v, int i, int dim) {
    return first(v) + (kAligned ? 0 : i) < dim;
  }
  /// Vector v of this thread, of any row of dim elements.
  __device__ static Vec<T, kVec> load_vector(const T* row, int v, int dim) {
    const int begin = first(v);
    if constexpr (kAligned) {
      return begin < dim ? Vec<T, kVec>::load(row + begin) : Vec<T, kVec>{};
    } else {
      float values[kVec];
#pragma unroll
      for (int i = 0; i < kVec; ++i) values[i] = begin + i < dim ? widen(row[begin + i]) : 0.0f;
      return Vec<T, kVec>::of(values);
    }
  }
  __device__ void load(const T* row, int dim) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) at[v] = load_vector(row, v, dim);
  }
  __device__ static void store_vector(T* row, int v, int dim, const Vec<T, kVec>& x) {
    const int begin = first(v);
    if constexpr (kAligned) {
      if (begin < dim) x.store(row + begin);
    } else {
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        if (begin + i < dim) row[begin + i] = narrow<T>(x[i]);
      }
    }
  }
  __device__ void store(T* row, int dim) const {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) store_vector(row, v, dim, at[v]);
  }
  /// Folds this thread's elements and the zeros past the row's end in ascending order:
  /// total = f(total, x).
  template <class F>
  __device__ float fold(F f) const {
    float total = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) total = f(total, at[v][i]);
    }
    return total;
  }
};

/// Calls launch(std::integral_constant<int, vectors>(), std::bool_constant<aligned>()).
template <class Launch>
void with_row_part(int vectors, bool aligned, Launch&& launch) {
  const auto with_vectors = [&](auto count) {
    if (aligned) {
      launch(count, std::true_type());
    } else {
      launch(count, std::false_type());
    }
  };
  static_assert(kRowMaxVectors == 5);
  switch (vectors) {
    case 1:
      return with_vectors(std::integral_constant<int, 1>());
    case 2:
      return with_vectors(std::integral_constant<int, 2>());
    case 3:
      return with_vectors(std::integral_constant<int, 3>());
    case 4:
      return with_vectors(std::integral_constant<int, 4>());
    default:
      return with_vectors(std::integral_constant<int, 5>());
  }
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_ROW_IN_REGISTERS_CUH_
