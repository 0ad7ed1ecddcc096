#include "kernels/core/tensor.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace vlr {

std::string_view dtype_name(DType t) {
  switch (t) {
    case DType::kBool:
      return "bool";
    case DType::kU8:
      return "u8";
    case DType::kI8:
      return "i8";
    case DType::kF8E4M3:
      return "f8_e4m3";
    case DType::kF8E5M2:
      return "f8_e5m2";
    case DType::kI16:
      return "i16";
    case DType::kU16:
      return "u16";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "i32";
    case DType::kU32:
      return "u32";
    case DType::kF32:
      return "f32";
    case DType::kI64:
      return "i64";
    case DType::kU64:
      return "u64";
    case DType::kF64:
      return "f64";
  }
  return "?";
}

double dtype_epsilon(DType t) {
  switch (t) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kF8E4M3:
      return 0x1p-4;
    case DType::kF8E5M2:
      return 0x1p-3;
    default:
      return 0;
  }
}

void broken_view(const char* expected) {
  throw std::length_error(std::string("tensor view: expected ") + expected);
}

ConstTensor contiguous_view(const void* data, DType dtype, std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank) broken_view("at most four axes");
  ConstTensor t;
  t.data = data;
  t.dtype = dtype;
  t.rank = static_cast<int>(dims.size());
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    t.dims[i] = dims[i];
    t.strides[i] = stride;
    stride *= dims[i];
  }
  return t;
}

std::string describe(const ConstTensor& t) {
  std::string dims;
  for (int i = 0; i < t.rank; ++i) dims += fmt::format("{}{}", i ? ", " : "", t.dim(i));
  return fmt::format("{}[{}]", dtype_name(t.dtype), dims);
}

float f16_to_f32(uint16_t v) {
  const uint32_t exponent = (v >> 10) & 0x1f, mantissa = v & 0x3ff;
  float magnitude;
  if (exponent == 0x1f) {
    magnitude = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  } else {  // of f32's exponent the bias is 127, of this one 15
    const uint32_t bits = (exponent + 112) << 23 | mantissa << 13;
    std::memcpy(&magnitude, &bits, 4);
  }
  return (v & 0x8000) ? -magnitude : magnitude;
}

uint16_t f32_to_f16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t abs = bits & 0x7fffffffu;
  if (abs > 0x7f800000u) return sign | 0x7e00u;
  if (abs >= 0x477ff000u) return sign | 0x7c00u;  // from 65520 up the nearest value is infinity
  if (abs < 0x38800000u) {                        // subnormal: the unit in the last place is 2^-24
    const float scaled = std::ldexp(std::fabs(f), 24);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)));
  }
  const uint32_t rounded = abs + 0xfffu + ((abs >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace vlr
