// mxfp4 as a row of the table of formats.
#include <algorithm>
#include <cmath>

#include "kernels/core/load.h"
#include "kernels/core/op.h"
#include "kernels/quant/formats.h"
#include "kernels/quant/mxfp4.h"

namespace vlr {
namespace {

constexpr int kLargestExponent = 2;  // of e2m1: 4 to 6

std::vector<Sidecar> sidecars(int64_t rows, int64_t cols, std::span<const FormatPart>) {
  return {{".scale", DType::kU8, {rows, mxfp4_row_blocks(cols)}}};
}

/// Codes are pairs of a row's values.
std::string refusal(int64_t cols, std::span<const FormatPart>) {
  if (cols % 2 == 0) return "";
  return "mxfp4 wants an even number of columns, got " + std::to_string(cols);
}

void view(QuantizedWeight& w, std::span<const ConstTensor> beside) { w.scales = beside[0]; }

Status check(std::string_view op, const QuantizedWeight& w) {
  if (w.cols % 2 != 0)
    return ops::invalid(op, "K must be even for mxfp4, got " + std::to_string(w.cols));
  VLR_RETURN_IF_ERROR(expect_codes(op, "w codes", w.codes, DType::kU8, {w.rows, w.cols / 2}));
  return expect_codes(op, "w scales", w.scales, DType::kU8, {w.rows, mxfp4_row_blocks(w.cols)});
}

int code_of(const QuantizedWeight& w, int64_t n, int64_t k) {
  const int pair = w.codes.as<uint8_t>()[(n * w.cols + k) / 2];
  return k % 2 == 0 ? pair & 15 : pair >> 4;
}

float scale_of(const QuantizedWeight& w, int64_t n, int64_t k) {
  return e8m0_to_f32(w.scales.as<uint8_t>()[n * mxfp4_row_blocks(w.cols) + k / kMxfp4Block]);
}

float value(const QuantizedWeight& w, int64_t n, int64_t k) {
  return kE2m1Values[static_cast<size_t>(code_of(w, n, k))] * scale_of(w, n, k);
}

/// Within a block, which ends with its row.
int64_t run(const QuantizedWeight& w, int64_t begin) {
  const int64_t k = begin % w.cols;
  return std::min(kMxfp4Block - k % kMxfp4Block, w.cols - k);
}

/// All of one block, whose 16 values are made once.
void decode(const QuantizedWeight& w, int64_t begin, int64_t count, float* out) {
  const float scale = scale_of(w, begin / w.cols, begin % w.cols);
  float values[16];
  for (size_t code = 0; code < 16; ++code) values[code] = kE2m1Values[code] * scale;
  const auto* codes = w.codes.as<uint8_t>();
  int64_t i = begin;
  const int64_t end = begin + count;
  if (i % 2 != 0) *out++ = values[codes[i++ / 2] >> 4];
  for (; i + 2 <= end; i += 2, out += 2) {
    const uint8_t pair = codes[i / 2];
    out[0] = values[pair & 15];
    out[1] = values[pair >> 4];
  }
  if (i < end) *out = values[codes[i / 2] & 15];
}

static_assert(kMxfp4Block <= kMaxRun);

void encode_row(const ConstTensor& values, int64_t n, Mxfp4Tensor& out) {
  const int64_t cols = values.dim(1), blocks = mxfp4_row_blocks(cols);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = n * cols + b * kMxfp4Block,
                  count = std::min(kMxfp4Block, cols - b * kMxfp4Block);
    float block[kMxfp4Block], largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      block[i] = load_f32(values, begin + i);
      largest = std::max(largest, std::fabs(block[i]));
    }
    // Of zeros it is the smallest scale. 127 - kLargestExponent is the largest: powers stay finite.
    const int exponent =
        largest > 0 ? std::max(std::ilogb(largest) - kLargestExponent, -127) : -127;
    out.scales[static_cast<size_t>(n * blocks + b)] = static_cast<uint8_t>(exponent + 127);
    const float inverse = std::ldexp(1.0f, -exponent);
    for (int64_t i = 0; i < count; i += 2) {
      const int low = f32_to_e2m1(block[i] * inverse), high = f32_to_e2m1(block[i + 1] * inverse);
      out.codes[static_cast<size_t>((begin + i) / 2)] = static_cast<std::byte>(high << 4 | low);
    }
  }
}

}  // namespace

uint8_t f32_to_e2m1(float v) {
  const float a = std::fabs(v);
  const int size = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
                   (a >= 3.5f) + (a > 5.0f);
  return static_cast<uint8_t>(size | (std::signbit(v) ? 8 : 0));
}

Mxfp4Tensor encode_mxfp4(const ConstTensor& values, ThreadPool& threads) {
  constexpr int64_t kPieceRows = 64;  // per task
  const int64_t rows = values.dim(0), cols = values.dim(1);
  Mxfp4Tensor out;
  out.codes.resize(static_cast<size_t>(rows * cols / 2));
  out.scales.resize(static_cast<size_t>(rows * mxfp4_row_blocks(cols)));
  threads.parallel_for(ceil_div(rows, kPieceRows), [&](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * kPieceRows);
    for (int64_t n = task * kPieceRows; n < end; ++n) encode_row(values, n, out);
  });
  return out;
}

extern const FormatInfo kMxfp4Format = {.format = WeightFormat::kMxfp4,
                                        .name = "mxfp4",
                                        .code_dtype = DType::kU8,
                                        .values_per_code = 2,
                                        .largest_distance = 0.3,
                                        .sidecars = sidecars,
                                        .refusal = refusal,
                                        .view = view,
                                        .check = check,
                                        .value = value,
                                        .run = run,
                                        .decode = decode};

}  // namespace vlr
