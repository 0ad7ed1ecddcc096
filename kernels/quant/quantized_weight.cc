#include "kernels/quant/quantized_weight.h"

#include <bit>

#include "kernels/core/op.h"

namespace vlr {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Status expect(std::string_view op, std::string_view operand, const ConstTensor& t, DType dtype,
              std::initializer_list<int64_t> dims) {
  VLR_RETURN_IF_ERROR(ops::expect_shape(op, operand, t, dims));
  VLR_RETURN_IF_ERROR(ops::expect_dtype(op, operand, t, {dtype}));
  if (t.contiguous()) return {};
  return ops::invalid(op, std::string(operand) + " must be contiguous");
}

}  // namespace

std::string_view weight_format_name(WeightFormat f) {
  switch (f) {
    case WeightFormat::kDense:
      return "dense";
    case WeightFormat::kNf4:
      return "nf4";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kFp8:
      return "fp8";
  }
  return "?";
}

int64_t QuantizedWeight::bytes() const {
  int64_t sum = 0;
  for (const ConstTensor& t : {codes, scales, nested, map}) sum += t.defined() ? t.bytes() : 0;
  return sum;
}

Status QuantizedWeight::check(std::string_view op) const {
  if (!defined()) return ops::invalid(op, "w must be nf4 | int8 | fp8, got dense");
  if (rows < 1 || cols < 1) {
    return ops::invalid(op, "N and K must be at least 1, got w " + std::to_string(rows) + " x " +
                                std::to_string(cols));
  }
  if (format != WeightFormat::kNf4) {
    const DType dtype = format == WeightFormat::kInt8 ? DType::kI8 : DType::kF8E4M3;
    VLR_RETURN_IF_ERROR(expect(op, "w codes", codes, dtype, {rows, cols}));
    return expect(op, "w scales", scales, DType::kF32, {rows});
  }
  if (rows * cols % 2 != 0) {
    return ops::invalid(op, "N * K must be even for nf4, got w " + std::to_string(rows) + " x " +
                                std::to_string(cols));
  }
  if (group_blocks < 1 || !std::has_single_bit(static_cast<uint64_t>(group_blocks))) {
    return ops::invalid(
        op, "blocks in a group of w must be a power of two, got " + std::to_string(group_blocks));
  }
  const int64_t blocks = ceil_div(rows * cols, kNf4Block);
  VLR_RETURN_IF_ERROR(expect(op, "w codes", codes, DType::kU8, {rows * cols / 2}));
  VLR_RETURN_IF_ERROR(expect(op, "w scales", scales, DType::kU8, {blocks}));
  VLR_RETURN_IF_ERROR(
      expect(op, "w nested", nested, DType::kF32, {ceil_div(blocks, group_blocks), 2}));
  return expect(op, "w map", map, DType::kF32, {256});
}

}  // namespace vlr
