// rmsnorm_quantize/in_registers: rmsnorm/in_registers, with the bits of its result, of which only
// the codes are written. Block, and what a thread owns: kernels/cuda/row_in_registers.cuh. Only for
// rows of whole vectors; a branch tells the two kinds of codes apart: there are enough kernels.
//   grid ceil(rows / rows of a block)   shared memory: two words a warp
#include "kernels/cuda/check.h"
#include "kernels/cuda/row_in_registers.cuh"
#include "kernels/cuda/row_to_codes.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/rmsnorm/rmsnorm.cuh"
#include "kernels/rmsnorm_quantize/impls.h"

namespace vlr::ops {
namespace {

template <class Code, class Part>
__device__ void write_row(const Part& part, uint32_t absmax_bits, void* q, float* scale, int dim) {
  const cuda::RowScale s = cuda::row_scale<Code>(absmax_bits);
  if (threadIdx.x == 0) *scale = s.scale;
#pragma unroll
  for (int v = 0; v < Part::kVectors; ++v) {
    if (Part::inside(v, 0, dim))
      cuda::store_codes<true>(part.at[v], s.inverse, static_cast<Code*>(q), Part::first(v), dim);
  }
}

template <class Part, class T>
__global__ void __launch_bounds__(cuda::kRowBoundThreads<Part>, cuda::kRowBoundBlocks<Part>)
    in_registers_kernel(Part, cuda::Rows<const T> x, const T* __restrict__ weight, uint8_t* q,
                        bool e4m3, float* scale, int64_t rows, int dim, float eps) {
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
  largest = Part::max(largest, maxima);
  if (!live) return;
  if (e4m3) {
    write_row<cuda::E4M3>(part, largest, q + row * dim, scale + row, dim);
  } else {
    write_row<int8_t>(part, largest, q + row * dim, scale + row, dim);
  }
}

}  // namespace

bool rmsnorm_quantize_fits_registers(const RmsNormQuantize::Args& a, const Context&) {
  return dtype_bytes(a.x.dtype) == 2 && a.x.dim(1) <= cuda::kRowMaxDim &&
         a.x.dim(1) % cuda::kVec == 0 && a.x.stride(0) % cuda::kVec == 0;
}

Status rmsnorm_quantize_in_registers(const RmsNormQuantize::Args& a, Context& ctx) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1);
  if (rows == 0) return {};
  if (!cuda::in_vectors({a.x, a.weight, a.q}))
    return invalid(RmsNormQuantize::kName, "in_registers wants operands at multiples of 16 bytes");
  const cuda::RowShape shape = cuda::row_shape(dim);
  const auto blocks = static_cast<unsigned>((rows + shape.block_rows - 1) / shape.block_rows);
  const dim3 block(static_cast<unsigned>(shape.threads), static_cast<unsigned>(shape.block_rows));
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    cuda::with_row_part<T, true>(shape, [&](auto part) {
      in_registers_kernel<<<blocks, block, 0, ctx.stream>>>(
          part, cuda::rows_of<T>(a.x), a.weight.as<T>(), a.q.as<uint8_t>(),
          a.q.dtype == DType::kF8E4M3, a.scale.as<float>(), rows, static_cast<int>(dim), a.eps);
    });
  });
  return cuda::to_status(cudaGetLastError(), "rmsnorm_quantize/in_registers launch");
}

}  // namespace vlr::ops
