#include "kernels/swiglu_quantize/swiglu_quantize.h"

#include "kernels/quantize_rows/quantized_result.h"
#include "kernels/swiglu/swiglu.h"
#include "kernels/swiglu_quantize/impls.h"

namespace vlr::ops {
namespace {

/// The two ops that this one is; what is between them has the shape and dtype of gate.
SwiGlu::Args swiglu_part(const SwiGluQuantize::Args& a) {
  return {.gate = a.gate,
          .up = a.up,
          .y = Tensor(nullptr, a.gate.dtype, {a.gate.dim(0), a.gate.dim(1)})};
}
QuantizeRows::Args quantize_part(const SwiGluQuantize::Args& a) {
  return {.x = swiglu_part(a).y, .q = a.q, .scale = a.scale};
}

}  // namespace

Status SwiGluQuantize::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "gate", a.gate, {-1, -1}));
  VLR_RETURN_IF_ERROR(SwiGlu::check(swiglu_part(a)).with_context(kName));
  return QuantizeRows::check(quantize_part(a)).with_context(kName);
}

Cost SwiGluQuantize::cost(const Args& a) {
  return {.bytes = static_cast<double>(2 * a.gate.bytes() + a.q.bytes() + a.scale.bytes()),
          .flops = SwiGlu::cost(swiglu_part(a)).flops + QuantizeRows::cost(quantize_part(a)).flops};
}

Tolerance SwiGluQuantize::tolerance(const Args& a) {
  return quantized_tolerance(SwiGlu::tolerance(swiglu_part(a)).rel, a.q.dtype);
}

std::span<const Impl<SwiGluQuantize>> SwiGluQuantize::impls() {
  static constexpr Impl<SwiGluQuantize> kImpls[] = {
#if VLR_WITH_CUDA
    {"block_per_row", Device::kCuda, swiglu_quantize_block_per_row, swiglu_quantize_fits_block},
    {"parts", Device::kCuda, swiglu_quantize_parts, nullptr, swiglu_quantize_parts_workspace},
#endif
    {"parts", Device::kCpu, swiglu_quantize_parts, nullptr, swiglu_quantize_parts_workspace},
    {"reference", Device::kCpu, swiglu_quantize_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
