#include <cmath>
#include <numbers>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/gelu/impls.h"

namespace vlr::ops {

Status gelu_reference(const Gelu::Args& a, Context&) {
  for_each_row(a.x, a.y, [&](const ConstTensor& x, const Tensor& y) {
    for (int64_t i = 0; i < x.dim(0); ++i) {
      const double z = load_f32(x, i);
      const double cdf =
          a.kind == GeluKind::kTanh
              ? std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z))
              : std::erf(z / std::numbers::sqrt2);
      store_f32(y, i, static_cast<float>(0.5 * z * (1 + cdf)));
    }
  });
  return {};
}

}  // namespace vlr::ops
