// layernorm/in_registers: a row is read once, by half a warp or more, and stays in registers:
// its mean, then the squares of what is left, then the affine map. Block, and what a thread owns:
// kernels/cuda/row_in_registers.cuh.
//   grid: the resident blocks, which go through the rows
//   shared memory: the next row's vectors, two floats a warp
#include "kernels/cuda/check.h"
#include "kernels/cuda/reciprocal.cuh"
#include "kernels/cuda/row_in_registers.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/layernorm/impls.h"

namespace vlr::ops {
namespace {

using cuda::kVec;

template <class Part, class T>
__global__ void __launch_bounds__(cuda::kRowBoundThreads<Part>, cuda::kRowBoundBlocks<Part>)
    in_registers_kernel(Part, cuda::Rows<const T> x, const T* __restrict__ weight,
                        const T* __restrict__ bias, cuda::Rows<T> y /* may be x */, int64_t rows,
                        int dim, float eps) {
  __shared__ float partial[2][cuda::kRowMaxThreads / cuda::kWarp];
  constexpr int kVectors = Part::kVectors;
  const float inverse_dim = cuda::reciprocal_approx(static_cast<float>(dim));
  const auto normalise = [&](int64_t row, bool live, Part& part) {
    float centred[kVectors][kVec];
    float sum = 0, squares = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) sum += centred[v][i] = part.at[v][i];
    }
    // Not to be fused into what subtracts it.
    const float mean = __fmul_rn(Part::sum(sum, partial[0]), inverse_dim);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        // Past the row's end there are zeros, whose distance from the mean does not count.
        centred[v][i] = Part::inside(v, i, dim) ? centred[v][i] - mean : 0.0f;
        squares = fmaf(centred[v][i], centred[v][i], squares);
      }
    }
    const float scale = rsqrtf(fmaf(Part::sum(squares, partial[1]), inverse_dim, eps));
    if (!live) return;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const cuda::Vec<T, kVec> weights = Part::load_vector(weight, v, dim);
      const cuda::Vec<T, kVec> biases = Part::load_vector(bias, v, dim);
      float out[kVec];
#pragma unroll
      for (int i = 0; i < kVec; ++i) out[i] = fmaf(centred[v][i] * scale, weights[i], biases[i]);
      Part::store_vector(y[row], v, dim, cuda::Vec<T, kVec>::of(out));
    }
  };
  cuda::for_each_row<Part>(
      rows, dim, [&](int64_t row) { return x[row]; }, normalise);
}

}  // namespace

bool layernorm_fits_registers(const LayerNorm::Args& a, const Context&) {
  return dtype_bytes(a.x.dtype) == 2 && a.x.dim(1) <= cuda::kRowMaxDim;
}

Status layernorm_in_registers(const LayerNorm::Args& a, Context& ctx) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1);
  if (rows == 0) return {};
  const cuda::RowShape shape = cuda::row_shape(dim);
  int multiprocessors = 0;
  VLR_CUDA_TRY(cuda::count_multiprocessors(&multiprocessors));
  const dim3 block(static_cast<unsigned>(shape.threads), static_cast<unsigned>(shape.block_rows));
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    const bool aligned = cuda::in_vectors({a.x, a.weight, a.bias, a.y});
    cuda::with_row_part<T>(shape, aligned, [&](auto part) {
      const unsigned blocks = cuda::row_blocks<decltype(part)>(rows, shape, multiprocessors);
      in_registers_kernel<<<blocks, block, 0, ctx.stream>>>(
          part, cuda::rows_of<T>(a.x), a.weight.as<T>(), a.bias.as<T>(), cuda::rows_of<T>(a.y),
          rows, static_cast<int>(dim), a.eps);
    });
  });
  return cuda::to_status(cudaGetLastError(), "layernorm/in_registers launch");
}

}  // namespace vlr::ops
