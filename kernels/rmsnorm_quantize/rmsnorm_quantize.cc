#include "kernels/rmsnorm_quantize/rmsnorm_quantize.h"

#include "kernels/quantize_rows/quantized_result.h"
#include "kernels/rmsnorm/rmsnorm.h"
#include "kernels/rmsnorm_quantize/impls.h"

namespace vlr::ops {
namespace {

/// The two ops that this one is; what is between them has the shape and dtype of x.
RmsNorm::Args rmsnorm_part(const RmsNormQuantize::Args& a) {
  return {.x = a.x,
          .weight = a.weight,
          .y = Tensor(nullptr, a.x.dtype, {a.x.dim(0), a.x.dim(1)}),
          .eps = a.eps};
}
QuantizeRows::Args quantize_part(const RmsNormQuantize::Args& a) {
  return {.x = rmsnorm_part(a).y, .q = a.q, .scale = a.scale};
}

}  // namespace

Status RmsNormQuantize::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1}));
  VLR_RETURN_IF_ERROR(RmsNorm::check(rmsnorm_part(a)).with_context(kName));
  return QuantizeRows::check(quantize_part(a)).with_context(kName);
}

Cost RmsNormQuantize::cost(const Args& a) {
  return {
      .bytes = static_cast<double>(a.x.bytes() + a.weight.bytes() + a.q.bytes() + a.scale.bytes()),
      .flops = RmsNorm::cost(rmsnorm_part(a)).flops + QuantizeRows::cost(quantize_part(a)).flops};
}

Tolerance RmsNormQuantize::tolerance(const Args& a) {
  return quantized_tolerance(RmsNorm::tolerance(rmsnorm_part(a)).rel, a.q.dtype);
}

std::span<const Impl<RmsNormQuantize>> RmsNormQuantize::impls() {
  static constexpr Impl<RmsNormQuantize> kImpls[] = {
#if VLR_WITH_CUDA
    {"in_registers", Device::kCuda, rmsnorm_quantize_in_registers, rmsnorm_quantize_fits_registers},
    {"parts", Device::kCuda, rmsnorm_quantize_parts, nullptr, rmsnorm_quantize_parts_workspace},
#endif
    {"parts", Device::kCpu, rmsnorm_quantize_parts, nullptr, rmsnorm_quantize_parts_workspace},
    {"reference", Device::kCpu, rmsnorm_quantize_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
