// convert/vector: element-wise over rows, eight elements at a time where every row allows it, else
// one by one. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
#include "kernels/convert/impls.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"

namespace vlr::ops {
namespace {

template <int kCount, class X, class Y>
__global__ void __launch_bounds__(cuda::kMapThreads)
    convert_kernel(cuda::Rows<const X> x, cuda::Rows<Y> y, int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  cuda::map_row<kCount>(
      dim, y[row], [](float v) { return v; }, x[row]);
}

template <class X, class Y>
void launch(const Convert::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  cuda::with_width(cuda::in_vectors({a.x, a.y}), [&](auto count) {
    const auto [grid, block] = cuda::map_shape(rows, dim, count());
    convert_kernel<count(), X, Y>
        <<<grid, block, 0, ctx.stream>>>(cuda::rows_of<X>(a.x), cuda::rows_of<Y>(a.y), rows, dim);
  });
}

}  // namespace

Status convert_vector(const Convert::Args& a, Context& ctx) {
  if (a.y.numel() == 0) return {};
  cuda::with_element(a.x.dtype, [&](auto x) {
    cuda::with_element(a.y.dtype, [&](auto y) { launch<decltype(x), decltype(y)>(a, ctx); });
  });
  return cuda::to_status(cudaGetLastError(), "convert/vector launch");
}

}  // namespace vlr::ops
