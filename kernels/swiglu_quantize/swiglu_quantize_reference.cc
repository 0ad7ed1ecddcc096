#include <vector>

#include "kernels/quantize_rows/impls.h"
#include "kernels/swiglu/impls.h"
#include "kernels/swiglu_quantize/impls.h"

namespace vlr::ops {

Status swiglu_quantize_reference(const SwiGluQuantize::Args& a, Context& ctx) {
  std::vector<std::byte> memory(static_cast<size_t>(a.gate.bytes()));
  const Tensor y(memory.data(), a.gate.dtype, {a.gate.dim(0), a.gate.dim(1)});
  VLR_RETURN_IF_ERROR(swiglu_reference({.gate = a.gate, .up = a.up, .y = y}, ctx));
  return quantize_rows_reference({.x = y, .q = a.q, .scale = a.scale}, ctx);
}

}  // namespace vlr::ops
