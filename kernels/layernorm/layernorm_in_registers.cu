// layernorm/in_registers: a row is read once, by one warp or several, and stays in their registers:
// its mean, then the squares of what is left, then the affine map. Block, and what a thread owns:
// kernels/cuda/row_in_registers.cuh.
//   grid ceil(rows / rows of a block)   shared memory: two floats a warp
#include "kernels/cuda/check.h"
#include "kernels/cuda/reciprocal.cuh"
#include "kernels/cuda/row_in_registers.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/layernorm/impls.h"

namespace vlr::ops {
namespace {

using cuda::kVec;

template <class T, int kVectors, bool kAligned>
__global__ void __launch_bounds__(cuda::kRowMaxThreads, cuda::kRowMinBlocks<kAligned>)
    in_registers_kernel(cuda::Rows<const T> x, const T* weight, const T* bias,
                        cuda::Rows<T> y /* may be x */, int64_t rows, int dim, float eps) {
  __shared__ float partial[2][cuda::kRowMaxWarps];
  using Part = cuda::RowPart<T, kVectors, kAligned>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int live_dim = row < rows ? dim : 0;  // a row too many still meets row_sum's barriers
  const float inverse_dim = cuda::reciprocal_approx(static_cast<float>(dim));
  Part part;
  part.load(x[row], live_dim);
  const float sum = cuda::row_sum(part.fold([](float s, float v) { return s + v; }), partial[0]);
  const float mean = __fmul_rn(sum, inverse_dim);  // not to be fused into what subtracts it
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      // Past the row's end there are zeros, whose distance from the mean does not count.
      const float centred = Part::inside(v, i, dim) ? part.at[v][i] - mean : 0.0f;
      squares = fmaf(centred, centred, squares);
    }
  }
  const float scale = rsqrtf(fmaf(cuda::row_sum(squares, partial[1]), inverse_dim, eps));
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const cuda::Vec<T, kVec> weights = Part::load_vector(weight, v, dim);
    const cuda::Vec<T, kVec> biases = Part::load_vector(bias, v, dim);
    float out[kVec];
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      out[i] = fmaf((part.at[v][i] - mean) * scale, weights[i], biases[i]);
    Part::store_vector(y[row], v, live_dim, cuda::Vec<T, kVec>::of(out));
  }
}

}  // namespace

bool layernorm_fits_registers(const LayerNorm::Args& a) {
  return dtype_bytes(a.x.dtype) == 2 && a.x.dim(1) <= cuda::kRowMaxDim;
}

Status layernorm_in_registers(const LayerNorm::Args& a, Context& ctx) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1);
  if (rows == 0) return {};
  const cuda::RowShape shape = cuda::row_shape(dim);
  const auto blocks = static_cast<unsigned>((rows + shape.block_rows - 1) / shape.block_rows);
  const dim3 block(static_cast<unsigned>(shape.warps * cuda::kWarp),
                   static_cast<unsigned>(shape.block_rows));
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    const bool aligned = cuda::in_vectors({a.x, a.weight, a.bias, a.y});
    cuda::with_row_part(shape.vectors, aligned, [&](auto vectors, auto is_aligned) {
      in_registers_kernel<T, vectors(), is_aligned()><<<blocks, block, 0, ctx.stream>>>(
          cuda::rows_of<T>(a.x), a.weight.as<T>(), a.bias.as<T>(), cuda::rows_of<T>(a.y), rows,
          static_cast<int>(dim), a.eps);
    });
  });
  return cuda::to_status(cudaGetLastError(), "layernorm/in_registers launch");
}

}  // namespace vlr::ops
