// swiglu/vector: element-wise over rows, 16 bytes at a time where every row allows it, else element
// by element. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/swiglu/impls.h"
#include "kernels/swiglu/swiglu.cuh"

namespace vlr::ops {
namespace {

template <int kCount, class T>
__global__ void __launch_bounds__(cuda::kMapThreads)
    swiglu_kernel(cuda::Rows<const T> gate, cuda::Rows<const T> up,
                  cuda::Rows<T> y /* may be gate or up */, int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  cuda::map_row<kCount>(
      dim, y[row], [](float g, float u) { return cuda::silu<T>(g) * u; }, gate[row], up[row]);
}

}  // namespace

Status swiglu_vector(const SwiGlu::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  if (rows == 0 || dim == 0) return {};
  cuda::with_element(a.y.dtype, [&](auto element) {
    using T = decltype(element);
    cuda::with_width(cuda::in_vectors({a.gate, a.up, a.y}), [&](auto count) {
      const auto [grid, block] = cuda::map_shape(rows, dim, count());
      swiglu_kernel<count(), T><<<grid, block, 0, ctx.stream>>>(
          cuda::rows_of<T>(a.gate), cuda::rows_of<T>(a.up), cuda::rows_of<T>(a.y), rows, dim);
    });
  });
  return cuda::to_status(cudaGetLastError(), "swiglu/vector launch");
}

}  // namespace vlr::ops
