// vision_pos_embed/vector: element-wise over rows, eight elements at a time where every row allows
// it, else one by one. Grid, block and what a thread owns: kernels/cuda/map_rows.cuh. The table
// (5 MB) stays in the L2.
#include "kernels/cuda/check.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/vision_pos_embed/impls.h"

namespace vlr::ops {
namespace {

template <int kCount, class T, class Table>
__global__ void __launch_bounds__(cuda::kMapThreads)
    vision_pos_embed_kernel(cuda::Rows<const T> x, cuda::Rows<const Table> table,
                            const int32_t* indices, const float* weights,
                            cuda::Rows<T> y /* may be x */, int64_t rows, int64_t dim) {
  const int64_t row = cuda::map_row_index();
  if (row >= rows) return;
  const int32_t* corner = indices + row * 4;
  const float w0 = weights[row * 4], w1 = weights[row * 4 + 1];
  const float w2 = weights[row * 4 + 2], w3 = weights[row * 4 + 3];
  const auto interpolate = [=](float v, float t0, float t1, float t2, float t3) {
    // Named operations, so that nothing is fused: the contract rounds every product.
    float sum = __fmul_rn(w0, t0);
    sum = __fadd_rn(sum, __fmul_rn(w1, t1));
    sum = __fadd_rn(sum, __fmul_rn(w2, t2));
    sum = __fadd_rn(sum, __fmul_rn(w3, t3));
    return __fadd_rn(v, sum);
  };
  cuda::map_row<kCount>(dim, y[row], interpolate, x[row], table[corner[0]], table[corner[1]],
                        table[corner[2]], table[corner[3]]);
}

template <class T, class Table>
void launch(const VisionPosEmbed::Args& a, Context& ctx) {
  const int64_t rows = a.y.dim(0), dim = a.y.dim(1);
  cuda::with_width(cuda::in_vectors({a.x, a.table, a.y}), [&](auto count) {
    const auto [grid, block] = cuda::map_shape(rows, dim, count());
    vision_pos_embed_kernel<count(), T, Table><<<grid, block, 0, ctx.stream>>>(
        cuda::rows_of<T>(a.x), cuda::rows_of<Table>(a.table), a.indices.as<int32_t>(),
        a.weights.as<float>(), cuda::rows_of<T>(a.y), rows, dim);
  });
}

}  // namespace

Status vision_pos_embed_vector(const VisionPosEmbed::Args& a, Context& ctx) {
  if (a.y.numel() == 0) return {};
  cuda::with_activation_and_weight(a.x.dtype, a.table.dtype, [&](auto x, auto table) {
    launch<decltype(x), decltype(table)>(a, ctx);
  });
  return cuda::to_status(cudaGetLastError(), "vision_pos_embed/vector launch");
}

}  // namespace vlr::ops
