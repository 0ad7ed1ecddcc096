// deepstack_add/vector: element-wise over rows, 16 bytes at a time where every row allows it, else
// element by element. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/deepstack_add/impls.h"

namespace vlr::ops {
namespace {

template <int kCount, class T>
__global__ void __launch_bounds__(cuda::kMapThreads)
    deepstack_add_kernel(cuda::Rows<const T> x, const int32_t* visual_row,
                         cuda::Rows<const T> features, cuda::Rows<T> y /* may be x */, int64_t rows,
                         int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  const int32_t visual = visual_row[row];
  if (visual >= 0) {
    cuda::map_row<kCount>(
        dim, y[row], [](float l, float r) { return l + r; }, x[row], features[visual]);
  } else if (x.data != y.data) {
    cuda::map_row<kCount>(
        dim, y[row], [](float v) { return v; }, x[row]);
  }
}

}  // namespace

Status deepstack_add_vector(const DeepstackAdd::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  if (rows == 0 || dim == 0) return {};
  cuda::with_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    cuda::with_width(cuda::in_vectors({a.x, a.features, a.y}), [&](auto count) {
      const auto [grid, block] = cuda::map_shape(rows, dim, count());
      deepstack_add_kernel<count(), T><<<grid, block, 0, ctx.stream>>>(
          cuda::rows_of<T>(a.x), a.visual_row.as<int32_t>(), cuda::rows_of<T>(a.features),
          cuda::rows_of<T>(a.y), rows, dim);
    });
  });
  return cuda::to_status(cudaGetLastError(), "deepstack_add/vector launch");
}

}  // namespace vlr::ops
