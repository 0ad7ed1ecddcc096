// dequantize/vector: eight values at a time, 4 or 8 bytes of codes and 16 (in f32 32) of values,
// where every eight lie in one row or block and at addresses that allow it; else one by one.
//   nf4, fp4: rows do not matter, values count from the weight's first one. A warp's accesses are whole
//   lines: 128 bytes of codes, 512 of values. A thread has kFourBitUnroll of them under way, which
//   makes 4 KB of codes a block: a few blocks on a multiprocessor suffice.
//     grid values / (256 * kFourBitUnroll * 8)   block 256   shared memory: the codebook, each value in
//     a bank of its own, so that lanes that want different ones do not wait for each other
//   mxfp4: rows are shared out as kernels/cuda/map_rows.cuh does; a code's value is a shift and two
//   products with powers of two.
//   int8, fp8: element-wise over rows: kernels/cuda/map_rows.cuh
#include <algorithm>
#include <bit>

#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/dequantize/impls.h"
#include "kernels/quant/four_bit.h"
#include "kernels/quant/mxfp4.h"

namespace vlr::ops {
namespace {

constexpr int kFourBitThreads = 256, kFourBitUnroll = 4;
constexpr int kFourBitBlockBits = std::countr_zero(uint64_t{kFourBitBlock});

struct FourBit {
  const uint8_t *codes, *absmax;
  const float *nested, *map;
  int group_bits;  // a group is 2^group_bits blocks
  float codebook[16];
};

/// y[i] = value first + i. kCount values of one block at a time: `first`, `count` and a block are
/// multiples of it.
template <int kCount, class T>
__global__ void __launch_bounds__(kFourBitThreads)
    four_bit_kernel(const __grid_constant__ FourBit w, int64_t first, int64_t count,
                    T* __restrict__ y) {
  __shared__ float codebook[16];
  if (threadIdx.x < 16) codebook[threadIdx.x] = w.codebook[threadIdx.x];
  __syncthreads();
  // Where the thread block begins, in values, and in which block of the weight; all else is near.
  const int64_t begin = int64_t{blockIdx.x} * (kFourBitUnroll * kFourBitThreads * kCount);
  const int64_t block = (first + begin) >> kFourBitBlockBits;
  const auto skipped = static_cast<uint32_t>((first + begin) & (kFourBitBlock - 1));
  const uint8_t* block_codes = w.codes + block * (kFourBitBlock / 2);
  const uint8_t* block_absmax = w.absmax + block;
  const auto last = static_cast<uint32_t>(min(count - begin, int64_t{1} << 30)) - kCount;
  uint32_t index[kFourBitUnroll],
      codes[kFourBitUnroll];  // four bits a value, a byte's higher four first
  float absmax[kFourBitUnroll];
#pragma unroll
  for (uint32_t u = 0; u < kFourBitUnroll; ++u) {
    // Past the end it is the last values once more: without branches all loads are under way.
    index[u] = min((threadIdx.x + u * kFourBitThreads) * kCount, last);
    const uint32_t at = skipped + index[u], next = at >> kFourBitBlockBits;
    if constexpr (kCount == 8) {
      codes[u] = *reinterpret_cast<const uint32_t*>(block_codes + (at >> 1));
    } else {
      codes[u] = static_cast<uint32_t>(block_codes[at >> 1]) << 4 * (at & 1);
    }
    const float* nested = w.nested + 2 * ((static_cast<uint32_t>(block) + next) >> w.group_bits);
    absmax[u] = __fadd_rn(__fmul_rn(w.map[block_absmax[next]], nested[0]), nested[1]);
  }
#pragma unroll
  for (int u = 0; u < kFourBitUnroll; ++u) {
    float values[kCount];
#pragma unroll
    for (int v = 0; v < kCount; ++v)
      values[v] = codebook[codes[u] >> (v % 2 == 0 ? 4 * v + 4 : 4 * v - 4) & 15] * absmax[u];
    cuda::Vec<T, kCount>::of(values).store(y + begin + index[u]);
  }
}

template <class T>
void launch_four_bit(const Dequantize::Args& a, Context& ctx) {
  const QuantizedWeight& w = a.w;
  const int64_t first = a.first_row * w.cols, count = a.y.numel();
  FourBit four_bit{
      .codes = w.codes.as<uint8_t>(),
      .absmax = w.scales.as<uint8_t>(),
      .nested = w.nested.as<float>(),
      .map = w.map.as<float>(),
      .group_bits = std::min(std::countr_zero(static_cast<uint64_t>(w.group_blocks)), 31),
      .codebook = {}};
  std::ranges::copy(codebook(w.format), four_bit.codebook);
  const bool vectors = first % cuda::kVec == 0 && count % cuda::kVec == 0 &&
                       reinterpret_cast<uintptr_t>(w.codes.data) % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(a.y.data) % 16 == 0;
  cuda::with_width(vectors, [&](auto width) {
    constexpr int64_t kBlockValues = int64_t{kFourBitThreads} * kFourBitUnroll * width();
    const auto blocks = static_cast<unsigned>((count + kBlockValues - 1) / kBlockValues);
    four_bit_kernel<width()>
        <<<blocks, kFourBitThreads, 0, ctx.stream>>>(four_bit, first, count, a.y.as<T>());
  });
}

template <int kCount, class Code, class T>
__global__ void __launch_bounds__(cuda::kMapThreads)
    eight_bit_kernel(const Code* codes, const float* scales, T* y, int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  const float scale = scales[row];
  cuda::map_row<kCount>(
      dim, y + row * dim, [scale](float code) { return code * scale; }, codes + row * dim);
}

template <class Code, class T>
void launch_eight_bit(const Dequantize::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  const ConstTensor codes = a.w.codes.slice(0, a.first_row, rows);
  const float* scales = a.w.scales.as<float>() + a.first_row;
  cuda::with_width(cuda::in_vectors({codes, a.y}), [&](auto width) {
    const auto [grid, block] = cuda::map_shape(rows, dim, width());
    eight_bit_kernel<width()>
        <<<grid, block, 0, ctx.stream>>>(codes.as<Code>(), scales, a.y.as<T>(), rows, dim);
  });
}

/// Exact: the code's three bits are the top of an f32's exponent and fraction, 2^126 times too small.
__device__ inline float e2m1_value(uint32_t code) {
  return __uint_as_float((code & 8) << 28 | (code & 7) << 22) * 0x1p126f;
}

__device__ inline float e8m0_scale(uint32_t bits) {
  return __uint_as_float(bits == 255 ? 0x7fffffffu : bits == 0 ? 0x00400000u : bits << 23);
}

/// kCount values of one block at a time: `dim` is a multiple of it.
template <int kCount, class T>
__global__ void __launch_bounds__(cuda::kMapThreads)
    mxfp4_kernel(const uint8_t* codes, const uint8_t* scales, T* __restrict__ y, int64_t rows,
                 int64_t dim, int64_t row_blocks) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  codes += row * (dim / 2);
  scales += row * row_blocks;
  y += row * dim;
  const int64_t step = int64_t{blockDim.x} * kCount, segment = step * cuda::kMapUnroll;
  for (int64_t first = blockIdx.y * segment + threadIdx.x * kCount; first < dim;
       first += gridDim.y * segment) {
    uint32_t packed[cuda::kMapUnroll], scale[cuda::kMapUnroll];
#pragma unroll
    for (int u = 0; u < cuda::kMapUnroll; ++u) {
      const int64_t k = min(first + u * step, dim - kCount);
      scale[u] = scales[k / kMxfp4Block];
      if constexpr (kCount == 8) {
        packed[u] = *reinterpret_cast<const uint32_t*>(codes + k / 2);
      } else {
        packed[u] = static_cast<uint32_t>(codes[k / 2]) >> 4 * (k % 2);
      }
    }
#pragma unroll
    for (int u = 0; u < cuda::kMapUnroll; ++u) {
      if (first + u * step >= dim) break;
      const float factor = e8m0_scale(scale[u]);
      float values[kCount];
#pragma unroll
      for (int v = 0; v < kCount; ++v) values[v] = e2m1_value(packed[u] >> 4 * v) * factor;
      cuda::Vec<T, kCount>::of(values).store(y + first + u * step);
    }
  }
}

template <class T>
void launch_mxfp4(const Dequantize::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  const ConstTensor codes = a.w.codes.slice(0, a.first_row, rows);
  const ConstTensor scales = a.w.scales.slice(0, a.first_row, rows);
  const bool vectors = dim % cuda::kVec == 0 && reinterpret_cast<uintptr_t>(codes.data) % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(a.y.data) % 16 == 0;
  cuda::with_width(vectors, [&](auto width) {
    const auto [grid, block] = cuda::map_shape(rows, dim, width());
    mxfp4_kernel<width()><<<grid, block, 0, ctx.stream>>>(codes.as<uint8_t>(), scales.as<uint8_t>(),
                                                          a.y.as<T>(), rows, dim, scales.dim(1));
  });
}

}  // namespace

Status dequantize_vector(const Dequantize::Args& a, Context& ctx) {
  if (a.y.numel() == 0) return {};
  cuda::with_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    switch (a.w.format) {
      case WeightFormat::kDense:
        break;  // refused by check()
      case WeightFormat::kNf4:
      case WeightFormat::kFp4:
        return launch_four_bit<T>(a, ctx);
      case WeightFormat::kInt8:
        return launch_eight_bit<int8_t, T>(a, ctx);
      case WeightFormat::kFp8:
        return launch_eight_bit<cuda::E4M3, T>(a, ctx);
      case WeightFormat::kMxfp4:
        return launch_mxfp4<T>(a, ctx);
    }
  });
  return cuda::to_status(cudaGetLastError(), "dequantize/vector launch");
}

}  // namespace vlr::ops
