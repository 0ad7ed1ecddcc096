#include <vector>

#include "kernels/dequantize/impls.h"
#include "kernels/linear/impls.h"
#include "kernels/linear_weight_only/impls.h"

namespace vlr::ops {

/// A column of y at a time: one row of the weight, decoded, then `linear`.
Status linear_weight_only_reference(const LinearWeightOnly::Args& a, Context& ctx) {
  std::vector<std::byte> memory(static_cast<size_t>(a.w.cols * dtype_bytes(a.x.dtype)));
  const Tensor row(memory.data(), a.x.dtype, {1, a.w.cols});
  for (int64_t n = 0; n < a.y.dim(1); ++n) {
    VLR_RETURN_IF_ERROR(
        dequantize_reference({.w = a.w, .first_row = a.first_row + n, .y = row}, ctx));
    Linear::Args column{.x = a.x,
                        .w = row,
                        .bias = a.bias,
                        .residual = a.residual,
                        .y = a.y.slice(1, n, 1),
                        .activation = a.activation};
    if (a.bias.defined()) column.bias = a.bias.slice(0, n, 1);
    if (a.residual.defined()) column.residual = a.residual.slice(1, n, 1);
    VLR_RETURN_IF_ERROR(linear_reference(column, ctx));
  }
  return {};
}

}  // namespace vlr::ops
