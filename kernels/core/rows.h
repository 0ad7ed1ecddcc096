/// Walks the rows of two tensors of one shape together: for references of row-wise ops.
#ifndef VLR_KERNELS_CORE_ROWS_H_
#define VLR_KERNELS_CORE_ROWS_H_

#include "kernels/core/tensor.h"

namespace vlr {

/// Calls body(const float* x_row, float* y_row) for every row of [rows, dim] or [rows, heads, dim].
template <class Body>
void for_each_row(const ConstTensor& x, const Tensor& y, Body&& body) {
  const int64_t heads = x.rank == 3 ? x.dim(1) : 1;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      const bool has_heads = x.rank == 3;
      body(x.row<float>(r) + (has_heads ? h * x.stride(1) : 0),
           y.row<float>(r) + (has_heads ? h * y.stride(1) : 0));
    }
  }
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_ROWS_H_
