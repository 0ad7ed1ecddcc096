/// Operands in 8 and 4 bits.
#ifndef VLR_BENCH_SUPPORT_QUANTIZED_H_
#define VLR_BENCH_SUPPORT_QUANTIZED_H_

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench/support/operands.h"
#include "bench/support/shape.h"
#include "kernels/quant/formats.h"
#include "kernels/quant/four_bit.h"

namespace vlr::bench {

/// What rows are quantised to.
inline Axis codes_axis() { return {"codes", 0, "", {"i8", "f8e4m3"}}; }
inline DType codes_dtype(const Shape& s) { return s["codes"] == 0 ? DType::kI8 : DType::kF8E4M3; }
constexpr int64_t codes_value(DType codes) { return codes == DType::kI8 ? 0 : 1; }

/// Scales of rows of codes, whose values are then of size about 1.
inline std::vector<float> random_scales(int64_t count, DType codes, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> scales(static_cast<size_t>(count));
  for (float& s : scales) s = std::exp2(normal(rng) / 4) / (largest_code(codes) / 4);
  return scales;
}

/// How a weight is stored; nf4 if nothing is said.
inline Axis format_axis() {
  Axis axis{"format"};
  for (const FormatInfo& f : quantized_formats()) axis.names.emplace_back(f.name);
  return axis;
}
inline WeightFormat weight_format(const Shape& s) {
  return quantized_formats()[static_cast<size_t>(s["format"])].format;
}
inline int64_t format_value(WeightFormat format) {
  int64_t i = 0;
  for (const FormatInfo& f : quantized_formats()) {
    if (f.format == format) break;
    ++i;
  }
  return i;
}

/// A weight of size about 1: random codes and scales that suit them.
inline QuantizedWeight random_weight(Operands& o, WeightFormat format, int64_t n, int64_t k) {
  const FormatInfo& info = format_info(format);
  const FormatPart part{.values = n * k};
  if (const std::string why = info.refusal(k, {&part, 1}); !why.empty())
    throw std::invalid_argument(why);
  const Tensor codes = o.weights("codes", {n, k / info.values_per_code}, info.code_dtype);
  std::vector<ConstTensor> beside;
  for (const Sidecar& s : info.sidecars(n, k, {&part, 1})) {
    const std::string name(s.suffix.substr(1));
    const int64_t rows = s.shape[0];
    if (s.suffix == ".nested") {  // largest values of blocks from 0.5 to 1
      std::vector<float> nested;
      for (int64_t g = 0; g < rows; ++g) nested.insert(nested.end(), {0.25f, 0.75f});
      beside.push_back(o.copy_of(name, nested, {rows, 2}, s.dtype));
    } else if (s.suffix == ".map") {
      const auto map = dynamic_map();
      beside.push_back(
          o.copy_of(name, std::vector<float>(map.begin(), map.end()), {rows}, s.dtype));
    } else if (format == WeightFormat::kMxfp4) {  // a fourth, an eighth: codes reach 6
      std::vector<uint8_t> exponents(static_cast<size_t>(rows * s.shape[1]));
      for (size_t i = 0; i < exponents.size(); ++i)
        exponents[i] = static_cast<uint8_t>(124 + i / 3 % 2);
      beside.push_back(o.copy_of(name, exponents, {rows, s.shape[1]}, s.dtype));
    } else if (s.dtype == DType::kU8) {
      beside.push_back(o.random(name, {rows}, s.dtype));
    } else {
      beside.push_back(o.copy_of(name, random_scales(rows, info.code_dtype, 3), {rows}, s.dtype));
    }
  }
  return quantized_weight(format, codes, beside);
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_QUANTIZED_H_
