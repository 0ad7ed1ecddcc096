// add/vector: element-wise over rows, 16 bytes at a time where every row allows it, else element by
// element. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
#include "kernels/add/impls.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"

namespace vlr::ops {
namespace {

template <int kCount, class T>
__global__ void __launch_bounds__(cuda::kMapThreads)
    add_kernel(cuda::Rows<const T> a, cuda::Rows<const T> b, cuda::Rows<T> y /* may be a or b */,
               int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  cuda::map_row<kCount>(
      dim, y[row], [](float l, float r) { return l + r; }, a[row], b[row]);
}

}  // namespace

Status add_vector(const Add::Args& args, Context& ctx) {
  const int64_t rows = args.y.dim(0), dim = args.y.dim(1);
  if (rows == 0 || dim == 0) return {};
  cuda::with_element(args.y.dtype, [&](auto element) {
    using T = decltype(element);
    cuda::with_width(cuda::in_vectors({args.a, args.b, args.y}), [&](auto count) {
      const auto [grid, block] = cuda::map_shape(rows, dim, count());
      add_kernel<count(), T><<<grid, block, 0, ctx.stream>>>(
          cuda::rows_of<T>(args.a), cuda::rows_of<T>(args.b), cuda::rows_of<T>(args.y), rows, dim);
    });
  });
  return cuda::to_status(cudaGetLastError(), "add/vector launch");
}

}  // namespace vlr::ops
