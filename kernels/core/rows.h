/// Rows of tensors, as views: for references of row-wise ops.
#ifndef VLR_KERNELS_CORE_ROWS_H_
#define VLR_KERNELS_CORE_ROWS_H_

#include "kernels/core/tensor.h"

namespace vlr {

/// Row r of [rows, dim], or head h of row r of [rows, heads, dim], as [dim].
template <class Void>
TensorView<Void> row_of(const TensorView<Void>& t, int64_t r, int64_t h = 0) {
  TensorView<Void> row = t.slice(0, r, 1);
  if (t.rank == 3) row = row.slice(1, h, 1);
  row.rank = 1;
  row.dims = {t.dim(t.rank - 1)};
  row.strides = {1};
  return row;
}

/// Calls body(x_row, y_row) for every row of two tensors of one shape, [rows, dim] or
/// [rows, heads, dim].
template <class Body>
void for_each_row(const ConstTensor& x, const Tensor& y, Body&& body) {
  const int64_t heads = x.rank == 3 ? x.dim(1) : 1;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    for (int64_t h = 0; h < heads; ++h) body(row_of(x, r, h), row_of(y, r, h));
  }
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_ROWS_H_
