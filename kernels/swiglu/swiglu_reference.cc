#include <cmath>

#include "kernels/swiglu/impls.h"

namespace vlr::ops {

Status swiglu_reference(const SwiGlu::Args& a, Context&) {
  for (int64_t t = 0; t < a.y.dim(0); ++t) {
    const float* gate = a.gate.row<float>(t);
    const float* up = a.up.row<float>(t);
    float* y = a.y.row<float>(t);
    for (int64_t i = 0; i < a.y.dim(1); ++i) {
      const double z = gate[i];
      y[i] = static_cast<float>(z / (1 + std::exp(-z))) * up[i];
    }
  }
  return {};
}

}  // namespace vlr::ops
