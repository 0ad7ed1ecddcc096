#include "kernels/quant/formats.h"

#include <cstdlib>

#include "kernels/core/op.h"

namespace vlr {

// One of each format, in a file of its own.
extern const FormatInfo kNf4Format, kFp4Format, kInt8Format, kFp8Format, kMxfp4Format;

std::span<const FormatInfo> quantized_formats() {
  static const FormatInfo kFormats[] = {kNf4Format, kFp4Format, kInt8Format, kFp8Format,
                                        kMxfp4Format};
  return kFormats;
}

const FormatInfo& format_info(WeightFormat format) {
  for (const FormatInfo& info : quantized_formats()) {
    if (info.format == format) return info;
  }
  std::abort();
}

std::string_view weight_format_name(WeightFormat f) {
  return f == WeightFormat::kDense ? "dense" : format_info(f).name;
}

QuantizedWeight quantized_weight(WeightFormat format, const ConstTensor& codes,
                                 std::span<const ConstTensor> sidecars) {
  const FormatInfo& info = format_info(format);
  QuantizedWeight w{.format = format,
                    .rows = codes.dim(0),
                    .cols = codes.dim(1) * info.values_per_code,
                    .codes = codes};
  info.view(w, sidecars);
  return w;
}

Status expect_codes(std::string_view op, std::string_view operand, const ConstTensor& t,
                    DType dtype, std::initializer_list<int64_t> dims) {
  VLR_RETURN_IF_ERROR(ops::expect_shape(op, operand, t, dims));
  VLR_RETURN_IF_ERROR(ops::expect_dtype(op, operand, t, {dtype}));
  if (t.contiguous()) return {};
  return ops::invalid(op, std::string(operand) + " must be contiguous");
}

int64_t QuantizedWeight::bytes() const {
  int64_t sum = 0;
  for (const ConstTensor& t : {codes, scales, nested, map}) sum += t.defined() ? t.bytes() : 0;
  return sum;
}

Status QuantizedWeight::check(std::string_view op) const {
  if (!defined()) {
    std::string names;
    for (const FormatInfo& f : quantized_formats()) {
      if (!names.empty()) names += " | ";
      names += f.name;
    }
    return ops::invalid(op, "w must be " + names + ", got dense");
  }
  if (rows < 1 || cols < 1) {
    return ops::invalid(op, "N and K must be at least 1, got w " + std::to_string(rows) + " x " +
                                std::to_string(cols));
  }
  return format_info(format).check(op, *this);
}

}  // namespace vlr
