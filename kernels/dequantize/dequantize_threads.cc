// dequantize/threads: rows over threads, and a row in pieces: codes to f32 by tables, then to the
// dtype of y. An nf4 piece is what the row has of one block, whose 16 values are made once.

#include <algorithm>
#include <array>

#include "kernels/core/load.h"
#include "kernels/core/parallel_rows.h"
#include "kernels/dequantize/impls.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/nf4.h"

namespace vlr::ops {
namespace {

constexpr int64_t kPiece = 256;  // values of int8 and fp8
static_assert(kPiece >= kNf4Block);

const std::array<float, 256>& e4m3_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> v{};
    for (size_t code = 0; code < v.size(); ++code)
      v[code] = e4m3_to_f32(static_cast<uint8_t>(code));
    return v;
  }();
  return values;
}

/// Values [begin, begin + count) of the flattened weight, all of one block.
void decode_nf4(const QuantizedWeight& w, int64_t begin, int64_t count, float* out) {
  const float absmax = nf4_absmax(w, begin / kNf4Block);
  float values[16];
  for (size_t code = 0; code < 16; ++code) values[code] = kNf4Codebook[code] * absmax;
  const auto* codes = w.codes.as<uint8_t>();
  int64_t i = begin;
  const int64_t end = begin + count;
  if (i % 2 != 0) *out++ = values[codes[i++ / 2] & 15];
  for (; i + 2 <= end; i += 2, out += 2) {
    const uint8_t pair = codes[i / 2];
    out[0] = values[pair >> 4];
    out[1] = values[pair & 15];
  }
  if (i < end) *out = values[codes[i / 2] >> 4];
}

/// The same of an 8-bit weight, all of one row.
void decode_8_bit(const QuantizedWeight& w, int64_t begin, int64_t count, float* out) {
  const float scale = w.scales.as<float>()[begin / w.cols];
  if (w.format == WeightFormat::kInt8) {
    const int8_t* codes = w.codes.as<int8_t>() + begin;
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(codes[i]) * scale;
  } else {
    const uint8_t* codes = w.codes.as<uint8_t>() + begin;
    const std::array<float, 256>& values = e4m3_values();
    for (int64_t i = 0; i < count; ++i) out[i] = values[codes[i]] * scale;
  }
}

void decode_row(const Dequantize::Args& a, int64_t n) {
  const bool nf4 = a.w.format == WeightFormat::kNf4;
  const int64_t piece = nf4 ? kNf4Block : kPiece;
  const int64_t row = (a.first_row + n) * a.w.cols, end = row + a.w.cols;
  for (int64_t begin = row, count; begin < end; begin += count) {
    // Blocks count from the start of the weight, pieces of 8-bit codes from that of the row.
    count = std::min(piece - (nf4 ? begin : begin - row) % piece, end - begin);
    const int64_t at = n * a.w.cols + (begin - row);
    float narrow[kPiece];
    float* out = a.y.dtype == DType::kF32 ? a.y.as<float>() + at : narrow;
    (nf4 ? decode_nf4 : decode_8_bit)(a.w, begin, count, out);
    if (a.y.dtype == DType::kBF16) {
      for (int64_t i = 0; i < count; ++i) a.y.as<uint16_t>()[at + i] = f32_to_bf16(narrow[i]);
    } else if (a.y.dtype == DType::kF16) {
      for (int64_t i = 0; i < count; ++i) a.y.as<uint16_t>()[at + i] = f32_to_f16(narrow[i]);
    }
  }
}

}  // namespace

Status dequantize_threads(const Dequantize::Args& a, Context& ctx) {
  parallel_rows(*ctx.threads, a.y.dim(0), a.w.cols, [&](int64_t n) { decode_row(a, n); });
  return {};
}

}  // namespace vlr::ops
