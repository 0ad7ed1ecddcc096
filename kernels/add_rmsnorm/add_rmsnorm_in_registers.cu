// add_rmsnorm/in_registers: rmsnorm/in_registers with two rows to read and the rounded sum written
// on the way. Block, and what a thread owns: kernels/cuda/row_in_registers.cuh.
//   grid ceil(rows / rows of a block)   shared memory: a float a warp
#include "kernels/add_rmsnorm/impls.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/row_in_registers.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/rmsnorm/rmsnorm.cuh"

namespace vlr::ops {
namespace {

template <class Part, class T>
__global__ void __launch_bounds__(cuda::kRowBoundThreads<Part>, cuda::kRowBoundBlocks<Part>)
    in_registers_kernel(Part, cuda::Rows<const T> a, cuda::Rows<const T> b,
                        const T* __restrict__ weight, cuda::Rows<T> sum /* may be a or b */,
                        cuda::Rows<T> y, int64_t rows, int dim, float eps) {
  __shared__ float partial[cuda::kRowMaxThreads / cuda::kWarp];
  const int64_t index = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool live = index < rows;  // a row too many still meets the barrier of its sum
  const int64_t row = live ? index : rows - 1;
  Part part, other;
  part.load(a[row], dim);
  other.load(b[row], dim);
#pragma unroll
  for (int v = 0; v < Part::kVectors; ++v) {
    float added[cuda::kVec];
#pragma unroll
    for (int i = 0; i < cuda::kVec; ++i) added[i] = part.at[v][i] + other.at[v][i];
    part.at[v] = cuda::Vec<T, cuda::kVec>::of(added);
  }
  if (live) part.store(sum[row], dim);
  cuda::rmsnorm_in_registers(part, weight, dim, eps, partial);
  if (live) part.store(y[row], dim);
}

}  // namespace

bool add_rmsnorm_fits_registers(const AddRmsNorm::Args& args, const Context&) {
  return dtype_bytes(args.a.dtype) == 2 && args.a.dim(1) <= cuda::kRowMaxDim;
}

Status add_rmsnorm_in_registers(const AddRmsNorm::Args& args, Context& ctx) {
  const int64_t rows = args.a.dim(0), dim = args.a.dim(1);
  if (rows == 0) return {};
  const cuda::RowShape shape = cuda::row_shape(dim);
  const auto blocks = static_cast<unsigned>((rows + shape.block_rows - 1) / shape.block_rows);
  const dim3 block(static_cast<unsigned>(shape.threads), static_cast<unsigned>(shape.block_rows));
  cuda::with_16_bit_element(args.a.dtype, [&](auto element) {
    using T = decltype(element);
    const bool aligned = cuda::in_vectors({args.a, args.b, args.weight, args.sum, args.y});
    cuda::with_row_part<T>(shape, aligned, [&](auto part) {
      in_registers_kernel<<<blocks, block, 0, ctx.stream>>>(
          part, cuda::rows_of<T>(args.a), cuda::rows_of<T>(args.b), args.weight.as<T>(),
          cuda::rows_of<T>(args.sum), cuda::rows_of<T>(args.y), rows, static_cast<int>(dim),
          args.eps);
    });
  });
  return cuda::to_status(cudaGetLastError(), "add_rmsnorm/in_registers launch");
}

}  // namespace vlr::ops
