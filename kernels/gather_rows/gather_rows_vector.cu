// gather_rows/vector: copies rows, 16 bytes at a time where every row allows it, else element by
// element. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/gather_rows/impls.h"

namespace vlr::ops {
namespace {

template <int kCount, class T>
__global__ void __launch_bounds__(cuda::kMapThreads)
    gather_rows_kernel(cuda::Rows<const T> x, const int32_t* indices, cuda::Rows<T> y, int64_t rows,
                       int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  cuda::map_row<kCount>(
      dim, y[row], [](float v) { return v; }, x[indices[row]]);
}

}  // namespace

Status gather_rows_vector(const GatherRows::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  if (rows == 0 || dim == 0) return {};
  cuda::with_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    cuda::with_width(cuda::in_vectors({a.x, a.y}), [&](auto count) {
      const auto [grid, block] = cuda::map_shape(rows, dim, count());
      gather_rows_kernel<count(), T><<<grid, block, 0, ctx.stream>>>(
          cuda::rows_of<T>(a.x), a.rows.as<int32_t>(), cuda::rows_of<T>(a.y), rows, dim);
    });
  });
  return cuda::to_status(cudaGetLastError(), "gather_rows/vector launch");
}

}  // namespace vlr::ops
