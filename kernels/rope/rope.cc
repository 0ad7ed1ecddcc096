#include "kernels/rope/rope.h"

#include "kernels/core/activation_dtypes.h"
#include "kernels/rope/impls.h"

namespace vlr::ops {

Status Rope::check(const Args& a) {
  VLR_RETURN_IF_ERROR(expect_shape(kName, "x", a.x, {-1, -1, -1}));
  const int64_t head_dim = a.x.dim(2);
  if (head_dim % 2 != 0) return invalid(kName, "head_dim must be even, got x " + describe(a.x));
  VLR_RETURN_IF_ERROR(expect_shape(kName, "table", a.table, {a.x.dim(0), 2, head_dim / 2}));
  VLR_RETURN_IF_ERROR(expect_same_shape(kName, "y", a.y, a.x));
  VLR_RETURN_IF_ERROR(expect_activation(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "table", a.table, {DType::kF32}));
  VLR_RETURN_IF_ERROR(expect_dtype(kName, "y", a.y, {a.x.dtype}));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "x", a.x));
  VLR_RETURN_IF_ERROR(expect_rows(kName, "y", a.y));
  if (!a.table.contiguous()) return invalid(kName, "table must be contiguous");
  return expect_same_or_no_overlap(kName, "y", a.y, "x", a.x);
}

namespace {
bool is_f32(const Rope::Args& a, const Context&) { return a.x.dtype == DType::kF32; }
}  // namespace

Cost Rope::cost(const Args& a) {
  return {.bytes = static_cast<double>(a.x.bytes() + a.table.bytes() + a.y.bytes()),
          .flops = 3.0 * static_cast<double>(a.x.numel())};
}

Tolerance Rope::tolerance(const Args& a) {
  // The two products may cancel: what remains is an f32 error of the size of the operands (about 1
  // in tests).
  return {.rel = 4 * dtype_epsilon(a.x.dtype), .abs = 8 * 0x1p-24 + least_step(a.x.dtype)};
}

std::span<const Impl<Rope>> Rope::impls() {
  static constexpr Impl<Rope> kImpls[] = {
#if VLR_WITH_CUDA
    {"shuffle", Device::kCuda, rope_shuffle, rope_in_shuffles},
    {"pairs", Device::kCuda, rope_pairs},
#endif
    {"simd", Device::kCpu, rope_simd, is_f32},
    {"reference", Device::kCpu, rope_reference},
  };
  return kImpls;
}

}  // namespace vlr::ops
