#include "kernels/rope_table/rope_table.h"

#include "kernels/rope_table/impls.h"

namespace vlr::ops {

Status RopeTable::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "positions", a.positions, {-1, -1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "axis", a.axis, {-1}));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "inv_freq", a.inv_freq, {a.axis.dim(0)}));
  VLR_RETURN_IF_ERROR(
      expect_shape(kName, "table", a.table, {a.positions.dim(1), 2, a.axis.dim(0)}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "positions", a.positions, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "axis", a.axis, {DType::kI32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "inv_freq", a.inv_freq, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "table", a.table, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "positions", a.positions));
  if (!a.table.contiguous()) return invalid(kName, "table must be contiguous");
  return {};
}

Cost RopeTable::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.positions.bytes() + a.table.bytes()),
          .flops = 40.0 * static_cast<double>(a.table.numel())};
}

Tolerance RopeTable::tolerance(const Args&) { return {.rel = 0x1p-22, .abs = 0x1p-24}; }

std::span<const Impl<RopeTable>> RopeTable::impls() {
  static constexpr Impl<RopeTable> kImpls[] = {
#if VLR_WITH_CUDA
    {"per_pair", Device::kCuda, rope_table_per_pair},
#endif
    {"reference", Device::kCpu, rope_table_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
