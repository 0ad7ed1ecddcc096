#include <vector>

#include "kernels/quantize_rows/impls.h"
#include "kernels/rmsnorm/impls.h"
#include "kernels/rmsnorm_quantize/impls.h"

namespace vlr::ops {

Status rmsnorm_quantize_reference(const RmsNormQuantize::Args& a, Context& ctx) {
  std::vector<std::byte> memory(static_cast<size_t>(a.x.bytes()));
  const Tensor y(memory.data(), a.x.dtype, {a.x.dim(0), a.x.dim(1)});
  VLR_RETURN_IF_ERROR(rmsnorm_reference({.x = a.x, .weight = a.weight, .y = y, .eps = a.eps}, ctx));
  return quantize_rows_reference({.x = y, .q = a.q, .scale = a.scale}, ctx);
}

}  // namespace vlr::ops
