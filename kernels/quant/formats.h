/// The formats of quantised weights, a row each: whoever wants to know something of a format asks
/// this table. How files store a format is in model/stored_weight.h and
/// engine/weights/stored_codecs.h.
#ifndef VLR_KERNELS_QUANT_FORMATS_H_
#define VLR_KERNELS_QUANT_FORMATS_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"
#include "kernels/quant/quantized_weight.h"
#include "vlr/status.h"

namespace vlr {

/// A part that a weight is joined from: so many values, from a tensor of this name.
struct FormatPart {
  int64_t values = 0;
  std::string_view source = {};
  bool nested_scales = true;  ///< nf4, fp4: scales of its blocks are quantised themselves
};

/// A tensor beside a weight's codes, in memory. Its name is the weight's with the suffix.
struct Sidecar {
  std::string_view suffix;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};
/// A format has at most so many: they are QuantizedWeight's scales, nested and map, in this order.
constexpr size_t kMaxSidecars = 3;

struct FormatInfo {
  WeightFormat format;
  std::string_view name;
  DType code_dtype;
  int64_t values_per_code;  ///< codes are [N, K / values_per_code] in memory
  /// How far a product with a weight in this format may be from that with the weight before, as
  /// relative L2. Weights without outlying values cost 0.092 in nf4, 0.009 in int8 and 0.026 in
  /// fp8; these are wider, as outliers coarsen the codes around them. Exchanged or scrambled
  /// weights are 1 or more apart.
  double largest_distance;

  /// Of a weight [N, K] that is joined from these parts.
  std::vector<Sidecar> (*sidecars)(int64_t rows, int64_t cols, std::span<const FormatPart> parts);
  /// Why a weight with so many columns, joined from such parts, cannot have the format; "": it can.
  std::string (*refusal)(int64_t cols, std::span<const FormatPart> parts);
  /// Codes and sidecars as tensors_of() shapes them -> the weight; its format is set already.
  void (*view)(QuantizedWeight& w, std::span<const ConstTensor> sidecars);
  /// QuantizedWeight::check() of what `view` made.
  Status (*check)(std::string_view op, const QuantizedWeight& w);
  /// Value k of row n, in f32: what the codes mean.
  float (*value)(const QuantizedWeight& w, int64_t n, int64_t k);
  /// The same of values of the flattened weight that are near each other: from `begin` on,
  /// run(w, begin) of them can be decoded at a time, at most kMaxRun.
  int64_t (*run)(const QuantizedWeight& w, int64_t begin);
  void (*decode)(const QuantizedWeight& w, int64_t begin, int64_t count, float* out);
};
constexpr int64_t kMaxRun = 256;

/// All quantised formats.
std::span<const FormatInfo> quantized_formats();
/// Of a quantised format, which has to have a row.
const FormatInfo& format_info(WeightFormat format);

/// A weight from its codes [N, K / values_per_code] and what is beside them, in the order of
/// FormatInfo::sidecars; the rest undefined.
QuantizedWeight quantized_weight(WeightFormat format, const ConstTensor& codes,
                                 std::span<const ConstTensor> sidecars);

// What formats share.
Status expect_codes(std::string_view op, std::string_view operand, const ConstTensor& t,
                    DType dtype, std::initializer_list<int64_t> dims);

}  // namespace vlr

#endif  // VLR_KERNELS_QUANT_FORMATS_H_
