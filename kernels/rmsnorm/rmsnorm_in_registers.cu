// rmsnorm/in_registers: a row (of one head) is read once, by half a warp or more, and stays in
// their registers. Block, and what a thread owns: kernels/cuda/row_in_registers.cuh.
//   grid ceil(rows / rows of a block)   shared memory: a float a warp
// A resident grid that copies the next row while it has this one (as layernorm/in_registers does)
// was slower for rows of 4096 and no faster for shorter ones.
#include "kernels/cuda/check.h"
#include "kernels/cuda/row_in_registers.cuh"
#include "kernels/cuda/views.cuh"
#include "kernels/rmsnorm/impls.h"
#include "kernels/rmsnorm/rmsnorm.cuh"

namespace vlr::ops {
namespace {

template <class Part, class T>
__global__ void __launch_bounds__(cuda::kRowBoundThreads<Part>, cuda::kRowBoundBlocks<Part>)
    in_registers_kernel(Part, cuda::Heads<const T> x, const T* __restrict__ weight,
                        cuda::Heads<T> y /* may be x */, int64_t count, int heads, int dim,
                        float eps) {
  __shared__ float partial[cuda::kRowMaxThreads / cuda::kWarp];
  const int64_t index = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const bool live = index < count;  // a row too many still meets the barrier of its sum
  const int64_t last = live ? index : count - 1;
  const int64_t row = heads == 1 ? last : last / heads, head = last - row * heads;
  Part part;
  part.load(x.at(row, head), dim);
  cuda::rmsnorm_in_registers(part, weight, dim, eps, partial);
  if (live) part.store(y.at(row, head), dim);
}

}  // namespace

bool rmsnorm_fits_registers(const RmsNorm::Args& a, const Context&) {
  return dtype_bytes(a.x.dtype) == 2 && a.x.dim(a.x.rank - 1) <= cuda::kRowMaxDim;
}

Status rmsnorm_in_registers(const RmsNorm::Args& a, Context& ctx) {
  const int64_t heads = cuda::num_heads(a.x), count = a.x.dim(0) * heads;
  const int64_t dim = a.x.dim(a.x.rank - 1);
  if (count == 0) return {};
  const cuda::RowShape shape = cuda::row_shape(dim);
  const auto blocks = static_cast<unsigned>((count + shape.block_rows - 1) / shape.block_rows);
  const dim3 block(static_cast<unsigned>(shape.threads), static_cast<unsigned>(shape.block_rows));
  cuda::with_16_bit_element(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    const bool aligned = cuda::in_vectors({a.x, a.weight, a.y});
    cuda::with_row_part<T>(shape, aligned, [&](auto part) {
      in_registers_kernel<<<blocks, block, 0, ctx.stream>>>(
          part, cuda::heads_of<T>(a.x), a.weight.as<T>(), cuda::heads_of<T>(a.y), count,
          static_cast<int>(heads), static_cast<int>(dim), a.eps);
    });
  });
  return cuda::to_status(cudaGetLastError(), "rmsnorm/in_registers launch");
}

}  // namespace vlr::ops
