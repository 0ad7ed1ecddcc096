// embedding/vector: copies rows, eight elements at a time where every row allows it, else one by
// one. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh.
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/embedding/impls.h"

namespace vlr::ops {
namespace {

template <int kCount, class T, class Table>
__global__ void __launch_bounds__(cuda::kMapThreads)
    embedding_kernel(const int32_t* ids, const int32_t* visual_row, cuda::Rows<const Table> table,
                     cuda::Rows<const T> visual, cuda::Rows<T> y, int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  const auto copy = [](float v) { return v; };
  const int32_t image = visual_row[row];
  if (image >= 0) {
    cuda::map_row<kCount>(dim, y[row], copy, visual[image]);
  } else {
    cuda::map_row<kCount>(dim, y[row], copy, table[ids[row]]);
  }
}

template <class T, class Table>
void launch(const Embedding::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  const ConstTensor visual =
      a.visual.defined() ? a.visual : ConstTensor(a.y);  // any rows: not read
  cuda::with_width(cuda::in_vectors({a.table, visual, a.y}), [&](auto count) {
    const auto [grid, block] = cuda::map_shape(rows, dim, count());
    embedding_kernel<count(), T, Table><<<grid, block, 0, ctx.stream>>>(
        a.ids.as<int32_t>(), a.visual_row.as<int32_t>(), cuda::rows_of<Table>(a.table),
        cuda::rows_of<T>(visual), cuda::rows_of<T>(a.y), rows, dim);
  });
}

}  // namespace

Status embedding_vector(const Embedding::Args& a, Context& ctx) {
  if (a.y.numel() == 0) return {};
  cuda::with_activation_and_weight(a.y.dtype, a.table.dtype, [&](auto y, auto table) {
    launch<decltype(y), decltype(table)>(a, ctx);
  });
  return cuda::to_status(cudaGetLastError(), "embedding/vector launch");
}

}  // namespace vlr::ops
