// int8 and fp8 as checkpoints store them: a code a value, a scale a row (model/stored_weight.h).
#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "engine/weights/stored_codecs.h"
#include "kernels/core/integer.h"
#include "kernels/quant/eight_bit.h"

namespace vlr {

using namespace stored;

namespace {

constexpr int64_t kPieceRows = 64;  // per task

Status verify_int8(const StoredTensors&, std::string_view name, const QuantizedTensor& t,
                   ThreadPool&) {
  return check_scales(name, t.scales);
}

/// e4m3 has two codes that are NaN.
Status verify_fp8(const StoredTensors&, std::string_view name, const QuantizedTensor& t,
                  ThreadPool& threads) {
  VLR_RETURN_IF_ERROR(check_scales(name, t.scales));
  std::atomic<int64_t> bad_row{-1};
  threads.parallel_for(ceil_div(t.rows, kPieceRows), [&](int64_t task, int) {
    const int64_t end = std::min(t.rows, (task + 1) * kPieceRows);
    for (int64_t r = task * kPieceRows; r < end; ++r) {
      const std::byte* row = t.codes.data() + r * t.cols;
      bool numbers = true;
      for (int64_t k = 0; k < t.cols; ++k)
        numbers = numbers && (row[k] & std::byte{0x7f}) != std::byte{0x7f};
      if (!numbers) bad_row = r;
    }
  });
  if (bad_row < 0) return {};
  return broken(name, fmt::format("row {} has a code that is not a number", bad_row.load()));
}

Status read_int8(const StoredTensors& tensors, std::string_view name, QuantizedTensor& t) {
  const std::string layout = joined(module_of(name), kWeightFormat);
  if (tensors.contains(layout)) {
    VLR_ASSIGN_OR_RETURN(const auto bytes, read_sidecar(tensors, layout, DType::kU8, 1));
    if (bytes[0] != std::byte{0}) {
      return {Code::kUnimplemented, fmt::format("{}: expected 0, row-major codes, got {}", layout,
                                                static_cast<int>(bytes[0]))};
    }
  }
  const std::string absmax = joined(module_of(name), kScb),
                    scale = joined(module_of(name), kWeightScale);
  if (!tensors.contains(absmax) && tensors.contains(scale)) {  // compressed-tensors'
    VLR_ASSIGN_OR_RETURN(t.scales, read_row_scales(tensors, scale, t.rows));
    return {};
  }
  VLR_ASSIGN_OR_RETURN(t.scales, read_floats(tensors, absmax, t.rows));
  t.scale_divisor = kInt8Max;
  return {};
}

Status read_fp8(const StoredTensors& tensors, std::string_view name, QuantizedTensor& t) {
  VLR_ASSIGN_OR_RETURN(t.scales,
                       read_row_scales(tensors, joined(module_of(name), kWeightScale), t.rows));
  return {};
}

/// Files have absmax.
void quantize_int8(const ConstTensor& dense, std::span<const float> absmax, QuantizedTensor& t,
                   ThreadPool& threads) {
  t.codes = quantize_weight_rows(dense, DType::kI8, threads).codes;
  t.scales.assign(absmax.begin(), absmax.end());
  t.scale_divisor = kInt8Max;
}

void quantize_fp8(const ConstTensor& dense, std::span<const float>, QuantizedTensor& t,
                  ThreadPool& threads) {
  RowQuantized rows = quantize_weight_rows(dense, DType::kF8E4M3, threads);
  t.codes = std::move(rows.codes);
  t.scales = std::move(rows.scales);
}

Status join_int8(JoinedWeight& out, QuantizedTensor& p, size_t, std::span<const int64_t>) {
  for (float& scale : p.scales) scale /= p.scale_divisor;
  append_bytes(out.beside[0], p.scales);
  return {};
}

Status join_fp8(JoinedWeight& out, QuantizedTensor& p, size_t, std::span<const int64_t>) {
  append_bytes(out.beside[0], p.scales);
  return {};
}

void write_int8(std::string_view name, const QuantizedTensor& t, DType,
                std::vector<WrittenTensor>& out) {
  const std::string module = module_of(name);
  append_tensor(out, std::string(name), DType::kI8, {t.rows, t.cols}, t.codes);
  append_tensor(out, joined(module, kScb), DType::kF32, {t.rows},
                std::as_bytes(std::span(t.scales)));
  const uint8_t row_major = 0;
  append_tensor(out, joined(module, kWeightFormat), DType::kU8, {},
                std::as_bytes(std::span(&row_major, 1)));
}

void write_fp8(std::string_view name, const QuantizedTensor& t, DType,
               std::vector<WrittenTensor>& out) {
  append_tensor(out, std::string(name), DType::kF8E4M3, {t.rows, t.cols}, t.codes);
  append_tensor(out, joined(module_of(name), kWeightScale), DType::kF32, {t.rows, 1},
                std::as_bytes(std::span(t.scales)));
}

}  // namespace

extern const StoredCodec kInt8Codec = {.format = WeightFormat::kInt8,
                                       .read = read_int8,
                                       .verify = verify_int8,
                                       .quantize = quantize_int8,
                                       .join = join_int8,
                                       .write = write_int8};

extern const StoredCodec kFp8Codec = {.format = WeightFormat::kFp8,
                                      .read = read_fp8,
                                      .verify = verify_fp8,
                                      .quantize = quantize_fp8,
                                      .join = join_fp8,
                                      .write = write_fp8};

}  // namespace vlr
