// nf4 and fp4 as rows of the table of formats.
#include <bit>

#include "kernels/core/integer.h"
#include "kernels/core/op.h"
#include "kernels/quant/formats.h"
#include "kernels/quant/four_bit.h"

namespace vlr {
namespace {

std::vector<Sidecar> sidecars(int64_t rows, int64_t cols, std::span<const FormatPart> parts) {
  const int64_t blocks = ceil_div(rows * cols, kFourBitBlock);
  std::vector<int64_t> values;
  int64_t largest = kFourBitNestedBlock;
  for (const FormatPart& part : parts) {
    values.push_back(part.values);
    if (!part.nested_scales) largest = 1;
  }
  return {{".absmax", DType::kU8, {blocks}},
          {".nested", DType::kF32, {ceil_div(blocks, four_bit_group_blocks(values, largest)), 2}},
          {".map", DType::kF32, {256}}};
}

/// Codes are pairs of a row's values, and parts end where blocks do.
template <WeightFormat kFormat>
std::string refusal(int64_t cols, std::span<const FormatPart> parts) {
  const std::string name(weight_format_name(kFormat));
  if (cols % 2 != 0) return name + " wants an even number of columns, got " + std::to_string(cols);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (parts[i].values % kFourBitBlock == 0) continue;
    return "in " + name + " " + std::to_string(parts[i].values) + " values of " +
           std::string(parts[i].source) + " are no whole blocks of " +
           std::to_string(kFourBitBlock) + ", and other rows follow";
  }
  return "";
}

void view(QuantizedWeight& w, std::span<const ConstTensor> beside) {
  w.codes = ConstTensor(w.codes.data, DType::kU8, {w.codes.numel()}, w.codes.device);
  w.scales = beside[0];
  w.nested = beside[1];
  w.map = beside[2];
  // The power of two that makes as many groups as there are; with one group, any that is not less.
  w.group_blocks = 1;
  while (ceil_div(w.scales.dim(0), w.group_blocks) > w.nested.dim(0)) w.group_blocks *= 2;
}

Status check(std::string_view op, const QuantizedWeight& w) {
  if (w.rows * w.cols % 2 != 0) {
    return ops::invalid(op, "N * K must be even for " + std::string(weight_format_name(w.format)) +
                                ", got w " + std::to_string(w.rows) + " x " +
                                std::to_string(w.cols));
  }
  if (w.group_blocks < 1 || !std::has_single_bit(static_cast<uint64_t>(w.group_blocks))) {
    return ops::invalid(
        op, "blocks in a group of w must be a power of two, got " + std::to_string(w.group_blocks));
  }
  const int64_t blocks = ceil_div(w.rows * w.cols, kFourBitBlock);
  VLR_RETURN_IF_ERROR(expect_codes(op, "w codes", w.codes, DType::kU8, {w.rows * w.cols / 2}));
  VLR_RETURN_IF_ERROR(expect_codes(op, "w scales", w.scales, DType::kU8, {blocks}));
  VLR_RETURN_IF_ERROR(
      expect_codes(op, "w nested", w.nested, DType::kF32, {ceil_div(blocks, w.group_blocks), 2}));
  return expect_codes(op, "w map", w.map, DType::kF32, {256});
}

float value(const QuantizedWeight& w, int64_t n, int64_t k) {
  const int64_t i = n * w.cols + k;
  const int pair = w.codes.as<uint8_t>()[i / 2];
  const int code = i % 2 == 0 ? pair >> 4 : pair & 15;
  return codebook(w.format)[static_cast<size_t>(code)] * four_bit_absmax(w, i / kFourBitBlock);
}

/// Blocks count from the start of the weight, whose rows do not matter.
int64_t run(const QuantizedWeight&, int64_t begin) { return kFourBitBlock - begin % kFourBitBlock; }

/// All of one block, whose 16 values are made once.
void decode(const QuantizedWeight& w, int64_t begin, int64_t count, float* out) {
  const float absmax = four_bit_absmax(w, begin / kFourBitBlock);
  float values[16];
  for (size_t code = 0; code < 16; ++code) values[code] = codebook(w.format)[code] * absmax;
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

static_assert(kFourBitBlock <= kMaxRun);

}  // namespace

// A part of a joined weight has groups of its own.
int64_t four_bit_group_blocks(std::span<const int64_t> part_values, int64_t largest) {
  int64_t group = largest;
  for (size_t i = 0; i + 1 < part_values.size(); ++i) {
    while (part_values[i] % (group * kFourBitBlock) != 0 && group > 1) group /= 2;
  }
  return group;
}

extern const FormatInfo kNf4Format = {.format = WeightFormat::kNf4,
                                      .name = "nf4",
                                      .code_dtype = DType::kU8,
                                      .values_per_code = 2,
                                      .largest_distance = 0.25,
                                      .sidecars = sidecars,
                                      .refusal = refusal<WeightFormat::kNf4>,
                                      .view = view,
                                      .check = check,
                                      .value = value,
                                      .run = run,
                                      .decode = decode};

extern const FormatInfo kFp4Format = {.format = WeightFormat::kFp4,
                                      .name = "fp4",
                                      .code_dtype = DType::kU8,
                                      .values_per_code = 2,
                                      .largest_distance = 0.3,
                                      .sidecars = sidecars,
                                      .refusal = refusal<WeightFormat::kFp4>,
                                      .view = view,
                                      .check = check,
                                      .value = value,
                                      .run = run,
                                      .decode = decode};

}  // namespace vlr
