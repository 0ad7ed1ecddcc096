/// Norms: a row is read once and stays in the registers of the threads that share it.
///   block (threads of a row, rows)   thread x owns the vectors x, x + blockDim.x, ... of its row
/// A row of dim elements has row_shape(dim).threads threads, whatever the number of rows and
/// however they are laid out: the order of its sums, and so their bits, depends on dim alone.
#ifndef VLR_KERNELS_CUDA_ROW_IN_REGISTERS_CUH_
#define VLR_KERNELS_CUDA_ROW_IN_REGISTERS_CUH_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/cp_async.cuh"
#include "kernels/cuda/ldmatrix.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"

namespace vlr::cuda {

constexpr int kRowWarpVectors = 9;   ///< of a thread, at most, where a row stays in one warp
constexpr int kRowBlockVectors = 5;  ///< of a thread, at most, where several warps share a row
constexpr int kRowMaxThreads = 8 * kWarp;
constexpr int64_t kRowMaxDim = int64_t{kRowMaxThreads} * kRowBlockVectors * kVec;
constexpr int kRowBlockThreads = 4 * kWarp;  ///< or as many as a row has

struct RowShape {
  int threads;  ///< that share a row: half a warp, or warps
  int vectors;  ///< of each of them
  int block_rows;
};
/// A row stays in a warp where it can: its sums then need no barrier. Half a warp has no idle lane
/// for rows of 1152 (16 x 9 vectors), where a whole one would idle for a tenth of its time.
constexpr RowShape row_shape(int64_t dim) {
  const int64_t vectors = (dim + kVec - 1) / kVec;
  int threads = kWarp / 2;
  while (vectors > int64_t{threads} * (threads > kWarp ? kRowBlockVectors : kRowWarpVectors))
    threads *= 2;
  return {threads, static_cast<int>((vectors + threads - 1) / threads),
          threads < kRowBlockThreads ? kRowBlockThreads / threads : 1};
}
static_assert(row_shape(1152).threads == 16 && row_shape(1152).vectors == 9);
static_assert(row_shape(2048).threads == 32 && row_shape(2048).vectors == 8);
static_assert(row_shape(4096).threads == 128 && row_shape(4096).vectors == 4);
static_assert(row_shape(kRowMaxDim).threads == kRowMaxThreads);

/// What a thread holds of a row of 16-bit elements; zeros past its end. Without kAligned the
/// elements are moved one by one, to and from the same places. kThreads is the row's number of
/// threads up to a warp, and 0 for the warps of a block.
template <class T, int kThreads_, int kVectors_, bool kAligned_>
struct RowPart {
  using Element = T;
  static constexpr int kThreads = kThreads_, kVectors = kVectors_;
  static constexpr bool kAligned = kAligned_;
  Vec<T, kVec> at[kVectors];

  __device__ static int threads() { return kThreads > 0 ? kThreads : static_cast<int>(blockDim.x); }
  /// The sum over the threads of a row, in each of them. `partial` is row_sum's.
  __device__ static float sum(float v, float* partial) {
    if constexpr (kThreads > 0) {
      return lane_sum<kThreads>(v);
    } else {
      return row_sum(v, partial);
    }
  }
  /// The maximum over them likewise. `partial` is row_max's.
  __device__ static uint32_t max(uint32_t v, uint32_t* partial) {
    if constexpr (kThreads > 0) {
      return lane_max<kThreads>(v);
    } else {
      return row_max(v, partial);
    }
  }
  /// The row's element that vector v begins with.
  __device__ static int first(int v) {
    return (static_cast<int>(threadIdx.x) + v * threads()) * kVec;
  }
  /// Whether element i of vector v is one of the row's. Of a thread's vectors only the last may end
  /// past the row: with one less they would not be enough.
  __device__ static bool inside(int v, int i, int dim) {
    return v < kVectors - 1 || first(v) + (kAligned ? 0 : i) < dim;
  }
  /// Vector v of this thread, of any row of dim elements.
  __device__ static Vec<T, kVec> load_vector(const T* row, int v, int dim) {
    const int begin = first(v);
    if constexpr (kAligned) {
      return inside(v, 0, dim) ? Vec<T, kVec>::load(row + begin) : Vec<T, kVec>{};
    } else {
      float values[kVec];
#pragma unroll
      for (int i = 0; i < kVec; ++i) values[i] = inside(v, i, dim) ? widen(row[begin + i]) : 0.0f;
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
      if (inside(v, 0, dim)) x.store(row + begin);
    } else {
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        if (inside(v, i, dim)) row[begin + i] = narrow<T>(x[i]);
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

/// Blocks of kRowBlockThreads to a multiprocessor: as many as its registers hold where a thread has
/// the elements of its vectors widened (8 registers each), half as many for operands on their way
/// to them, and some more; the longest share 128 registers.
template <class Part>
constexpr int kRowBlocksPerSm = Part::kAligned ? std::max(4, 65536 / kRowBlockThreads /
                                                                 (12 * Part::kVectors + 32))
                                               : 2;
/// What the launch bounds of such a kernel are: threads, and blocks of so many.
template <class Part>
constexpr int kRowBoundThreads = Part::kThreads > 0 ? kRowBlockThreads : kRowMaxThreads;
template <class Part>
constexpr int kRowBoundBlocks = kRowBlocksPerSm<Part>* kRowBlockThreads / kRowBoundThreads<Part>;

/// Calls use(row, live, part) for the rows of this thread, in a grid of any size. A thread copies
/// its vectors of the next row to a place of its own in shared memory while `use` has the row:
/// reading goes on while sums are made and results stored, and costs no registers. Past the last
/// row a thread has that row again, not `live` and not to be stored: all threads of a block make
/// the same calls, and may meet at barriers in them.
template <class Part, class RowAt, class Use>
__device__ inline void for_each_row(int64_t rows, int dim, RowAt row_at, Use use) {
  const int64_t step = int64_t{gridDim.x} * blockDim.y;
  int64_t first = int64_t{blockIdx.x} * blockDim.y;
  const auto row_of = [&](int64_t begin) { return row_at(min(begin + threadIdx.y, rows - 1)); };
  if constexpr (Part::kAligned) {
    // A thread's vectors lie a row of threads apart, so that neighbours' are in different banks.
    __shared__ uint4 copies[Part::kVectors][kRowBoundThreads<Part>];
    uint4* mine = &copies[0][threadIdx.y * Part::threads() + threadIdx.x];
    const auto copy = [&](const typename Part::Element* row) {
#pragma unroll
      for (int v = 0; v < Part::kVectors; ++v) {
        cp_async_16_or_zero(shared_address(mine + v * kRowBoundThreads<Part>), row + Part::first(v),
                            Part::inside(v, 0, dim));
      }
      cp_async_commit();
    };
    copy(row_of(first));
    for (; first < rows; first += step) {
      cp_async_wait<0>();
      Part part;
#pragma unroll
      for (int v = 0; v < Part::kVectors; ++v) {
        using Element = typename Part::Element;
        part.at[v] = Vec<Element, kVec>::load(
            reinterpret_cast<const Element*>(mine + v * kRowBoundThreads<Part>));
      }
      if (first + step < rows) copy(row_of(first + step));
      use(first + threadIdx.y, first + threadIdx.y < rows, part);
    }
  } else {
    for (; first < rows; first += step) {
      Part part;
      part.load(row_of(first), dim);
      use(first + threadIdx.y, first + threadIdx.y < rows, part);
    }
  }
}

/// Calls launch(RowPart<T, ...>()) with the type for a shape that row_shape() gives.
template <class T, bool kAligned, class Launch>
void with_row_part(const RowShape& shape, Launch&& launch) {
  const auto with_vectors = [&](auto threads, auto vectors) {
    if (shape.vectors == vectors()) launch(RowPart<T, threads(), vectors(), kAligned>());
  };
  const auto with_threads = [&]<int kFirst, int... kOffsets>(
      auto threads, std::integral_constant<int, kFirst>, std::integer_sequence<int, kOffsets...>) {
    (with_vectors(threads, std::integral_constant<int, kFirst + kOffsets>()), ...);
  };
  // The counts that are not listed are those that fewer threads manage.
  if (shape.threads == kWarp / 2) {
    with_threads(std::integral_constant<int, kWarp / 2>(), std::integral_constant<int, 1>(),
                 std::make_integer_sequence<int, 9>());
  } else if (shape.threads == kWarp) {
    with_threads(std::integral_constant<int, kWarp>(), std::integral_constant<int, 5>(),
                 std::make_integer_sequence<int, 5>());
  } else {
    with_threads(std::integral_constant<int, 0>(), std::integral_constant<int, 3>(),
                 std::make_integer_sequence<int, 3>());
  }
}

template <class T, class Launch>
void with_row_part(const RowShape& shape, bool aligned, Launch&& launch) {
  aligned ? with_row_part<T, true>(shape, launch) : with_row_part<T, false>(shape, launch);
}

inline cudaError_t count_multiprocessors(int* count) {
  int device = 0;
  if (cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) return e;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

/// The grid for for_each_row: the blocks that are resident at once, or fewer for few rows.
template <class Part>
unsigned row_blocks(int64_t rows, const RowShape& shape, int multiprocessors) {
  const int64_t needed = (rows + shape.block_rows - 1) / shape.block_rows;
  const int64_t per_sm =
      kRowBoundBlocks<Part> * kRowBoundThreads<Part> / (int64_t{shape.threads} * shape.block_rows);
  return static_cast<unsigned>(std::min(needed, multiprocessors * per_sm));
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_ROW_IN_REGISTERS_CUH_
