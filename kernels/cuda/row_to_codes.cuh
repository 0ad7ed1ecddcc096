/// Rows to codes of 8 bits: the scale of a row from its largest value, then the codes. What they
/// are: kernels/quantize_rows/quantize_rows.h.
#ifndef VLR_KERNELS_CUDA_ROW_TO_CODES_CUH_
#define VLR_KERNELS_CUDA_ROW_TO_CODES_CUH_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/quant/eight_bit.h"

namespace vlr::cuda {

/// The bits of the largest |x[i]|, or `so_far` if that is more. Bits of finite values, infinity and
/// NaN ascend in this order: unlike fmaxf, an integer maximum keeps a NaN.
template <class T>
__device__ inline uint32_t largest_bits(const Vec<T, kVec>& x, uint32_t so_far) {
#pragma unroll
  for (int i = 0; i < kVec; ++i) so_far = max(so_far, __float_as_uint(x[i]) & 0x7fffffffu);
  return so_far;
}

struct RowScale {
  float scale, inverse;  ///< inverse: 0 for a row of zeros
};
template <class Code>
__device__ inline RowScale row_scale(uint32_t absmax_bits) {
  constexpr float kLargest = std::is_same_v<Code, int8_t> ? kInt8Max : kE4m3Max;
  const float absmax = __uint_as_float(absmax_bits);
  return {__fdiv_rn(absmax, kLargest), absmax < kLeastAbsmax ? 0.0f : __fdiv_rn(kLargest, absmax)};
}

/// The codes of the vector that begins with a row's element `first`.
template <bool kAligned, class Code, class T>
__device__ inline void store_codes(const Vec<T, kVec>& x, float inverse, Code* row, int first,
                                   int dim) {
  float scaled[kVec];
#pragma unroll
  for (int i = 0; i < kVec; ++i) scaled[i] = x[i] * inverse;
  if constexpr (kAligned) {
    Vec<Code, kVec>::of(scaled).store(row + first);
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (first + i < dim) row[first + i] = narrow<Code>(scaled[i]);
    }
  }
}

/// The vector that begins with a row's element `first`, with zeros past the row's end.
template <bool kAligned, class T>
__device__ inline Vec<T, kVec> load_in_row(const T* row, int first, int dim) {
  if constexpr (kAligned) {
    return Vec<T, kVec>::load(row + first);
  } else {
    float values[kVec];
#pragma unroll
    for (int i = 0; i < kVec; ++i) values[i] = first + i < dim ? widen(row[first + i]) : 0.0f;
    return Vec<T, kVec>::of(values);
  }
}

// A block a row: as many threads as hold it in registers.
constexpr int kCodesVectors = 4;  ///< that a thread holds; of longer rows it makes the others twice
constexpr int kCodesMaxThreads = 16 * kWarp;
constexpr int64_t kCodesMaxDim = int64_t{kCodesMaxThreads} * kCodesVectors * kVec;

inline unsigned codes_threads(int64_t dim) {
  const int64_t warps = (dim + kWarp * kCodesVectors * kVec - 1) / (kWarp * kCodesVectors * kVec);
  return static_cast<unsigned>(std::min<int64_t>(warps * kWarp, kCodesMaxThreads));
}

/// The codes of a row and its scale by all threads of a block. vector_at(first) makes the vector
/// that begins with element `first`, with zeros past the row's end.
template <bool kAligned, class Code, class VectorAt>
__device__ inline void row_to_codes(int dim, VectorAt vector_at, Code* row, float* scale) {
  __shared__ uint32_t partial[kCodesMaxThreads / kWarp];
  const int step = static_cast<int>(blockDim.x) * kVec;
  const int begin = static_cast<int>(threadIdx.x) * kVec;
  const int rest = begin + kCodesVectors * step;  // this thread's first element not held
  // Past the end it is the row's first vector again, which changes no maximum: loads without
  // branches are all under way at once.
  decltype(vector_at(begin)) held[kCodesVectors];
#pragma unroll
  for (int v = 0; v < kCodesVectors; ++v)
    held[v] = vector_at(begin + v * step < dim ? begin + v * step : 0);
  uint32_t largest = 0;
#pragma unroll
  for (int v = 0; v < kCodesVectors; ++v) largest = largest_bits(held[v], largest);
#pragma unroll 1
  for (int first = rest; first < dim; first += step)
    largest = largest_bits(vector_at(first), largest);
  const RowScale s = row_scale<Code>(row_max(largest, partial));
  if (threadIdx.x == 0) *scale = s.scale;
#pragma unroll
  for (int v = 0; v < kCodesVectors; ++v) {
    const int first = begin + v * step;
    if (first < dim) store_codes<kAligned>(held[v], s.inverse, row, first, dim);
  }
#pragma unroll 1
  for (int first = rest; first < dim; first += step)
    store_codes<kAligned>(vector_at(first), s.inverse, row, first, dim);
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_ROW_TO_CODES_CUH_
