#include "kernels/dequantize/dequantize.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/dequantize/impls.h"

namespace vlr::ops {

Status Dequantize::check(const Args& a) {
  VLR_RETURN_IF_ERROR(a.w.check(kName));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "y", a.y, {-1, a.w.cols}));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "y", a.y));
  if (!a.y.contiguous()) return invalid(kName, "y must be contiguous");
  if (a.first_row >= 0 && a.first_row + a.y.dim(0) <= a.w.rows) return {};
  return invalid(kName, "w has " + std::to_string(a.w.rows) + " rows, not the " +
                            std::to_string(a.y.dim(0)) + " from row " +
                            std::to_string(a.first_row));
}

Cost Dequantize::cost(const Args& a) {
  const double part = static_cast<double>(a.y.dim(0)) / static_cast<double>(a.w.rows);
  return {.bytes = part * static_cast<double>(a.w.bytes()) + static_cast<double>(a.y.bytes()),
          .flops = static_cast<double>(a.y.numel())};
}

Tolerance Dequantize::tolerance(const Args&) { return {}; }

std::span<const Impl<Dequantize>> Dequantize::impls() {
  static constexpr Impl<Dequantize> kImpls[] = {
#if VLR_WITH_CUDA
    {"vector", Device::kCuda, dequantize_vector},
#endif
    {"threads", Device::kCpu, dequantize_threads},
    {"reference", Device::kCpu, dequantize_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
