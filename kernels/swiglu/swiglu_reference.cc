#include <cmath>

#include "kernels/core/load.h"
#include "kernels/core/rows.h"
#include "kernels/swiglu/impls.h"

namespace vlr::ops {

Status swiglu_reference(const SwiGlu::Args& a, Context&) {
  for (int64_t t = 0; t < a.y.dim(0); ++t) {
    const ConstTensor gate = row_of(a.gate, t), up = row_of(a.up, t);
    const Tensor y = row_of(a.y, t);
    for (int64_t i = 0; i < y.dim(0); ++i) {
      const double z = load_f32(gate, i);
      const float silu = round_to(y.dtype, static_cast<float>(z / (1 + std::exp(-z))));
      store_f32(y, i, silu * load_f32(up, i));
    }
  }
  return {};
}

}  // namespace vlr::ops
