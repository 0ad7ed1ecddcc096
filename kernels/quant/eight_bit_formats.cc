// int8 and fp8 as rows of the table of formats: a code a value, a scale a row.
#include <algorithm>
#include <array>

#include "kernels/core/op.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/formats.h"

namespace vlr {
namespace {

std::vector<Sidecar> sidecars(int64_t rows, int64_t, std::span<const FormatPart>) {
  return {{".scale", DType::kF32, {rows}}};
}

std::string refusal(int64_t, std::span<const FormatPart>) { return ""; }

void view(QuantizedWeight& w, std::span<const ConstTensor> beside) { w.scales = beside[0]; }

template <DType kCode>
Status check(std::string_view op, const QuantizedWeight& w) {
  VLR_RETURN_IF_ERROR(expect_codes(op, "w codes", w.codes, kCode, {w.rows, w.cols}));
  return expect_codes(op, "w scales", w.scales, DType::kF32, {w.rows});
}

/// Within a row.
int64_t run(const QuantizedWeight& w, int64_t begin) {
  return std::min(kMaxRun, w.cols - begin % w.cols);
}

float int8_value(const QuantizedWeight& w, int64_t n, int64_t k) {
  return static_cast<float>(w.codes.as<int8_t>()[n * w.cols + k]) * w.scales.as<float>()[n];
}

void decode_int8(const QuantizedWeight& w, int64_t begin, int64_t count, float* out) {
  const float scale = w.scales.as<float>()[begin / w.cols];
  const int8_t* codes = w.codes.as<int8_t>() + begin;
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(codes[i]) * scale;
}

float fp8_value(const QuantizedWeight& w, int64_t n, int64_t k) {
  return e4m3_to_f32(w.codes.as<uint8_t>()[n * w.cols + k]) * w.scales.as<float>()[n];
}

const std::array<float, 256>& e4m3_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> v{};
    for (size_t code = 0; code < v.size(); ++code)
      v[code] = e4m3_to_f32(static_cast<uint8_t>(code));
    return v;
  }();
  return values;
}

void decode_fp8(const QuantizedWeight& w, int64_t begin, int64_t count, float* out) {
  const float scale = w.scales.as<float>()[begin / w.cols];
  const uint8_t* codes = w.codes.as<uint8_t>() + begin;
  const std::array<float, 256>& values = e4m3_values();
  for (int64_t i = 0; i < count; ++i) out[i] = values[codes[i]] * scale;
}

}  // namespace

extern const FormatInfo kInt8Format = {.format = WeightFormat::kInt8,
                                       .name = "int8",
                                       .code_dtype = DType::kI8,
                                       .values_per_code = 1,
                                       .largest_distance = 0.15,
                                       .sidecars = sidecars,
                                       .refusal = refusal,
                                       .view = view,
                                       .check = check<DType::kI8>,
                                       .value = int8_value,
                                       .run = run,
                                       .decode = decode_int8};

extern const FormatInfo kFp8Format = {.format = WeightFormat::kFp8,
                                      .name = "fp8",
                                      .code_dtype = DType::kF8E4M3,
                                      .values_per_code = 1,
                                      .largest_distance = 0.15,
                                      .sidecars = sidecars,
                                      .refusal = refusal,
                                      .view = view,
                                      .check = check<DType::kF8E4M3>,
                                      .value = fp8_value,
                                      .run = run,
                                      .decode = decode_fp8};

}  // namespace vlr
