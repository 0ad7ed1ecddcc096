#include <cstring>

#include "kernels/convert/impls.h"
#include "kernels/core/load.h"

namespace vlr::ops {

Status convert_reference(const Convert::Args& a, Context&) {
  const int64_t rows = a.x.dim(0), dim = a.x.dim(1), element = dtype_bytes(a.x.dtype);
  for (int64_t r = 0; r < rows; ++r) {
    const ConstTensor x = a.x.slice(0, r, 1);
    const Tensor y = a.y.slice(0, r, 1);
    if (x.dtype == y.dtype) {
      std::memcpy(y.data, x.data, static_cast<size_t>(dim * element));
      continue;
    }
    for (int64_t i = 0; i < dim; ++i) store_f32(y, i, load_f32(x, i));
  }
  return {};
}

}  // namespace vlr::ops
