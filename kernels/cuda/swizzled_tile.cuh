/// Pieces of a matrix in shared memory, rows of 16-byte chunks that change places so that what is
/// read at once lies in different banks, and a thread's share of bringing them there.
#ifndef VLR_KERNELS_CUDA_SWIZZLED_TILE_CUH_
#define VLR_KERNELS_CUDA_SWIZZLED_TILE_CUH_

#include <cstdint>

#include "kernels/cuda/cp_async.cuh"

namespace vlr::cuda {

/// Byte offset of a chunk of a row in a piece of rows of 64 or 128 bytes. Eight chunks are a line of
/// 128 bytes; they change places by the number of their line, so that eight rows of one column of
/// chunks, which is what ldmatrix reads, lie in different banks.
template <int kRowBytes>
__device__ int swizzled(int row, int chunk) {
  static_assert(kRowBytes == 64 || kRowBytes == 128, "4 or 8 chunks a row");
  const int index = row * (kRowBytes / 16) + chunk, line = index / 8;
  return 128 * line + 16 * (index % 8 ^ line % 8);
}

/// The same for a piece as copies of boxes lay it out (kernels/cuda/tensor_copy.cuh): chunks keep to
/// their row, of 32, 64 or 128 bytes. Rows of 128 bytes lie as above.
template <int kRowBytes>
__device__ int swizzled_in_box(int row, int chunk) {
  return row * kRowBytes + 16 * (chunk ^ row * kRowBytes / 128 % (kRowBytes / 16));
}

/// A thread's share of one operand's pieces [kRows, kK]: chunks of one column, kRowStep rows apart.
/// Elements outside of the operand are zero. Not kAligned: rows may begin anywhere.
template <class T, int kRows, int kK, int kThreads, bool kAligned>
struct TileSource {
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(T));  // elements
  static constexpr int kRowBytes = kK * static_cast<int>(sizeof(T));
  static constexpr int kChunks = kK / kChunk, kRowStep = kThreads / kChunks;
  static constexpr int kCopies = kRows / kRowStep;
  static_assert(kRows % kRowStep == 0);
  static_assert(kRowStep * kRowBytes % 1024 == 0, "multiples of eight lines: the swizzle is equal");

  const T* from;   // of the thread's first row
  int64_t stride;  // of rows
  int rows;        // that the operand has from there on
  int column;      // of the chunk's first element, within the piece
  int offset;      // of the first chunk in shared memory

  __device__ TileSource(const void* base, int64_t stride_, int first_row, int num_rows) {
    const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
    stride = stride_;
    rows = num_rows - first_row - row;
    column = chunk * kChunk;
    from = static_cast<const T*>(base) + (int64_t{first_row} + row) * stride + column;
    offset = swizzled<kRowBytes>(row, chunk);
  }

  /// Brings elements [k, k + kK) of the i-th row of kCopies.
  __device__ void copy(char* piece, int i, int k, int k_dim) const {
    char* to = piece + offset + i * kRowStep * kRowBytes;
    const T* source = from + i * kRowStep * stride + k;
    const bool row_valid = i * kRowStep < rows;
    if constexpr (kAligned) {
      cp_async_16_or_zero(shared_address(to), source, row_valid && k + column < k_dim);
    } else {
      alignas(16) T values[kChunk];
#pragma unroll
      for (int e = 0; e < kChunk; ++e)
        values[e] = row_valid && k + column + e < k_dim ? source[e] : T(0.0f);
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(values);
    }
  }
  __device__ void copy_all(char* piece, int k, int k_dim) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) copy(piece, i, k, k_dim);
  }
};

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_SWIZZLED_TILE_CUH_
