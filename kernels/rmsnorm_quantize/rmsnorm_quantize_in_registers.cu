// rmsnorm_quantize/in_registers: rmsnorm/in_registers, with the bits of its result, of which only
// the codes are written. Block, and what a thread owns: kernels/cuda/row_in_registers.cuh.
//   grid ceil(rows / rows of a block)   shared memory: two words a warp
#include "kernels/cuda/check.h"
#include "kernels/cuda/row_in_registers.cuh"
#include "kernels/cuda/row_to_codes.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/rmsnorm/rmsnorm.cuh"
#include "kernels/rmsnorm_quantize/impls.h"

namespace vlr::ops {
namespace {

template <class Part, class T, class Code>
__global__ void __launch_bounds__(cuda::kRowBoundThreads<Part>, cuda::kRowBoundBlocks<Part>)
    in_registers_kernel(Part, cuda::Rows<const T> x, const T* __restrict__ weight, Code* q,
                        float* scale, int64_t rows, int dim, float eps) {
  __shared__ float sums[cuda::kRowMaxThreads / cuda::kWarp];
  __shared__ uint32_t maxima[cuda::kRowMaxThreads / cuda::kWarp];
  const int64_t index = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool live = index < rows;  // a row too many still meets the barriers
  const int64_t row = live ? index : rows - 1;
  Part part;
  part.load(x[row], dim);
  cuda::rmsnorm_in_registers(part, weight, dim, eps, sums);
  uint32_t largest = 0;
#pragma unroll
  for (int v = 0; v < Part::kVectors; ++v) largest = cuda::largest_bits(part.at[v], largest);
  const cuda::RowScale s = cuda::row_scale<Code>(Part::max(largest, maxima));
  if (!live) return;
  if (threadIdx.x == 0) scale[row] = s.scale;
#pragma unroll
  for (int v = 0; v < Part::kVectors; ++v) {
    if (Part::inside(v, 0, dim))
      cuda::store_codes<Part::kAligned>(part.at[v], s.inverse, q + row * dim, Part::first(v), dim);
  }
}

}  // namespace

bool rmsnorm_quantize_fits_registers(const RmsNormQuantize::Args& a) {
  return dtype_bytes(a.x.dtype) == 2 && a.x.dim(1) <= cuda::kRowMaxDim;
}

Status rmsnorm_quantize_in_registers(const RmsNormQuantize::Args& a, Context& ctx) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1);
  if (rows == 0) return {};
  const cuda::RowShape shape = cuda::row_shape(dim);
  const auto blocks = static_cast<unsigned>((rows + shape.block_rows - 1) / shape.block_rows);
  const dim3 block(static_cast<unsigned>(shape.threads), static_cast<unsigned>(shape.block_rows));
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    cuda::with_code(a.q.dtype, [&](auto code) {
      using T = decltype(element);
      const bool aligned = cuda::in_vectors({a.x, a.weight, a.q});
      cuda::with_row_part<T>(shape, aligned, [&](auto part) {
        in_registers_kernel<<<blocks, block, 0, ctx.stream>>>(
            part, cuda::rows_of<T>(a.x), a.weight.as<T>(), a.q.as<decltype(code)>(),
            a.scale.as<float>(), rows, static_cast<int>(dim), a.eps);
      });
    });
  });
  return cuda::to_status(cudaGetLastError(), "rmsnorm_quantize/in_registers launch");
}

}  // namespace vlr::ops
