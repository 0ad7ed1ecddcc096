// What a checkpoint says of quantised weights: any bytes as its config.json, and as tensors, with a
// safetensors header on the first line and the data behind it. A weight is refused, or its codes and
// what is beside them have the sizes that its format says, and its values are numbers.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/safetensors.h"
#include "engine/weights/quantized_tensors.h"
#include "kernels/quant/formats.h"
#include "model/quantization.h"

namespace {

using vlr::ConstTensor;
using vlr::FormatInfo;
using vlr::FormatPart;
using vlr::JoinedWeight;

void check_refusal(const vlr::Status& error) {
  if (error.ok() || error.message().empty() || error.message().size() > 2000) std::abort();
}

void check_config(std::string_view text) {
  const auto stored = vlr::parse_stored_quantization(text);
  if (!stored) return check_refusal(stored.error());
  for (const vlr::QuantRule& rule : stored->rules) {
    const auto again =
        vlr::parse_quant_rule(rule.pattern + "=" + std::string(vlr::quant_mode_name(rule.mode)));
    if (!rule.pattern.empty() && (!again || again->mode != rule.mode)) std::abort();
  }
}

void check_values(const JoinedWeight& weight, const FormatInfo& info,
                  const std::vector<vlr::Sidecar>& sidecars) {
  std::vector<ConstTensor> beside;
  for (size_t i = 0; i < sidecars.size(); ++i) {
    const auto& [suffix, dtype, shape] = sidecars[i];
    const std::byte* bytes = weight.beside[i].data();
    beside.push_back(shape.size() == 1 ? ConstTensor(bytes, dtype, {shape[0]})
                                       : ConstTensor(bytes, dtype, {shape[0], shape[1]}));
  }
  const vlr::QuantizedWeight view = vlr::quantized_weight(
      weight.format,
      {weight.codes.data(), info.code_dtype, {weight.rows, weight.cols / info.values_per_code}},
      beside);
  if (!view.check("fuzz").ok()) std::abort();
  float values[vlr::kMaxRun];
  const int64_t end = weight.rows * weight.cols;
  for (int64_t i = 0; i < end;) {
    const int64_t count = std::min(info.run(view, i), end - i);
    info.decode(view, i, count, values);
    if (!std::all_of(values, values + count, [](float v) { return std::isfinite(v); }))
      std::abort();
    i += count;
  }
}

/// A weight as a model has it: joined from this one, `count` times.
void check_joined(const vlr::QuantizedTensor& t, size_t count) {
  const FormatInfo& info = vlr::format_info(t.format);
  const std::vector<FormatPart> parts(count,
                                      FormatPart{t.rows * t.cols, "weight", t.nested_scales});
  const std::string refusal = info.refusal(t.cols, parts);
  const auto joined = vlr::join(std::vector<vlr::QuantizedTensor>(count, t));
  if (!joined) return check_refusal(joined.error());
  if (!refusal.empty()) return;
  const int64_t values = joined->rows * joined->cols;
  if (joined->rows != static_cast<int64_t>(count) * t.rows || joined->cols != t.cols ||
      std::ssize(joined->codes) != values / info.values_per_code * dtype_bytes(info.code_dtype)) {
    std::abort();
  }
  if (values == 0) return;  // the model's shapes have none of these
  const std::vector<vlr::Sidecar> sidecars = info.sidecars(joined->rows, joined->cols, parts);
  for (size_t i = 0; i < sidecars.size(); ++i) {
    const vlr::StoredShape shape{sidecars[i].dtype, sidecars[i].shape};
    if (std::ssize(joined->beside[i]) != shape.bytes()) std::abort();
  }
  check_values(*joined, info, sidecars);
}

void check_tensors(const vlr::StoredTensors& tensors) {
  static vlr::ThreadPool threads(1);
  for (const auto& [name, tensor] : tensors) {
    vlr::belongs_to_quantized(tensors, name);
    const auto stored = vlr::stored_weight(tensors, name);
    if (!stored) check_refusal(stored.error());
    const auto t = vlr::read_quantized(tensors, name, threads);
    if (!t) {
      check_refusal(t.error());
      continue;
    }
    if (!stored || stored->format != t->format ||
        stored->shape != std::vector<int64_t>{t->rows, t->cols}) {
      std::abort();
    }
    check_joined(*t, 1);
    check_joined(*t, 2);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_config(text);

  const size_t line = text.find('\n');
  if (line == text.npos) return 0;
  const uint64_t length = line;
  std::vector<std::byte> head(8 + line);
  std::memcpy(head.data(), &length, 8);
  if (line) std::memcpy(head.data() + 8, data, line);
  const std::string_view values = text.substr(line + 1);
  const auto data_begin = static_cast<int64_t>(head.size());
  const auto header =
      vlr::parse_safetensors_header(head, data_begin + static_cast<int64_t>(values.size()));
  if (!header) return 0;

  // Each tensor's bytes are an allocation of their own, so that a byte too many is found.
  vlr::StoredTensors tensors;
  std::vector<std::unique_ptr<std::byte[]>> owned;
  for (const auto& [name, entry] : header->tensors) {
    vlr::StoredTensor& t = tensors[name];
    static_cast<vlr::StoredShape&>(t) = entry;
    const auto bytes = static_cast<size_t>(t.bytes());
    owned.push_back(std::make_unique<std::byte[]>(bytes));
    std::copy_n(
        reinterpret_cast<const std::byte*>(values.data()) + (entry.file_offset - data_begin), bytes,
        owned.back().get());
    t.data = owned.back().get();
  }
  check_tensors(tensors);
  return 0;
}
