#include "model/stored_weight.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "kernels/quant/four_bit.h"
#include "model/json.h"

namespace vlr {

namespace stored {
std::string joined(std::string_view a, std::string_view b) {
  return std::string(a) + std::string(b);
}

std::string module_of(std::string_view name) {
  return std::string(name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name);
}
}  // namespace stored

using namespace stored;

namespace {
constexpr int64_t kMaxDim = int64_t{1} << 31;  // of a quantised weight: products of two fit
}  // namespace

Result<FourBitState> four_bit_state(const StoredTensors& tensors, std::string_view weight,
                                    WeightFormat format) {
  const std::string name = joined(weight, quant_state_of(format));
  const StoredTensor& t = tensors.find(name)->second;
  if (dtype_bytes(t.dtype) != 1) {
    return {Code::kInvalidArgument, fmt::format("{}: expected bytes, got {}", name,
                                                describe(static_cast<const StoredShape&>(t)))};
  }
  auto json = parse_json({reinterpret_cast<const char*>(t.data), static_cast<size_t>(t.bytes())});
  if (!json) return json.error().with_context(name);
  const auto wrong = [&](std::string_view key, std::string_view expected) {
    return Status(Code::kUnimplemented,
                  fmt::format("{}: {} must be {}, got {}", name, key, expected,
                              json->contains(key) ? (*json)[key].dump().substr(0, 80) : "none"));
  };
  const auto has = [&](std::string_view key, int64_t value) {
    return json->contains(key) && (*json)[key].is_number_integer() && (*json)[key] == value;
  };
  if (!json->is_object()) return {Code::kDataLoss, name + ": expected a JSON object"};
  if (!has("blocksize", kFourBitBlock)) return wrong("blocksize", "64");
  FourBitState s;
  s.nested = json->contains("nested_offset") || json->contains("nested_blocksize");
  if (s.nested) {
    if (!has("nested_blocksize", kFourBitNestedBlock)) return wrong("nested_blocksize", "256");
    if (!json->contains("nested_offset") || !(*json)["nested_offset"].is_number())
      return wrong("nested_offset", "a number");
    s.offset = (*json)["nested_offset"].get<double>();
    if (!std::isfinite(s.offset) || std::fabs(s.offset) > static_cast<double>(kLargestScale))
      return wrong("nested_offset", "a finite number of moderate size");
  }
  const auto dim = [&](size_t i) -> int64_t {
    const auto& shape = (*json)["shape"];
    return shape[i].is_number_integer() ? shape[i].get<int64_t>() : 0;
  };
  if (!json->contains("shape") || !(*json)["shape"].is_array() || (*json)["shape"].size() != 2)
    return wrong("shape", "[N, K]");
  s.rows = dim(0);
  s.cols = dim(1);
  if (s.rows < 1 || s.cols < 2 || s.rows > kMaxDim || s.cols > kMaxDim || s.cols % 2 != 0)
    return wrong("shape", "[N, K] with an even K");
  return s;
}

namespace {

using Shape = Result<std::vector<int64_t>>;

template <WeightFormat kFormat>
std::optional<Shape> four_bit_shape(const StoredTensors& tensors, std::string_view name,
                                    const StoredTensor& t) {
  if (!tensors.contains(joined(name, quant_state_of(kFormat)))) return {};
  if (kFormat == WeightFormat::kNf4 && tensors.contains(joined(name, kFp4State)))
    return Shape(Code::kInvalidArgument, fmt::format("{}: has a {} and a {}", name,
                                                     kNf4State.substr(1), kFp4State.substr(1)));
  const Result<FourBitState> s = four_bit_state(tensors, name, kFormat);
  if (!s) return Shape(s.error());
  if (t.bytes() * 2 == s->rows * s->cols) return Shape({s->rows, s->cols});
  return Shape(Code::kInvalidArgument,
               fmt::format("{}: {} bytes for a weight [{}, {}] in {}, got {}", name,
                           s->rows * s->cols / 2, s->rows, s->cols, weight_format_name(kFormat),
                           describe(static_cast<const StoredShape&>(t))));
}

/// Of a tensor of codes. A file may have one without rows and with any number of columns.
Shape checked_shape(std::string_view name, const StoredTensor& t, int64_t values_per_code) {
  const int64_t rows = t.shape[0], columns = t.shape[1];
  if (rows >= 1 && columns >= 1 && rows <= kMaxDim && columns <= kMaxDim / values_per_code)
    return Shape({rows, columns * values_per_code});
  return Shape(
      Code::kInvalidArgument,
      fmt::format("{}: expected codes of a weight [N, K] with N and K from 1 to {}, got {}", name,
                  kMaxDim, describe(static_cast<const StoredShape&>(t))));
}

/// A code a value; scales of rows, or one of all.
template <DType kCode>
std::optional<Shape> shape_of_codes(const StoredTensors& tensors, std::string_view name,
                                    const StoredTensor& t) {
  if (t.shape.size() != 2 || t.dtype != kCode) return {};
  const std::string module = module_of(name);
  const auto beside = [&](std::string_view suffix) { return tensors.find(joined(module, suffix)); };
  if (const auto zero = beside(kWeightZero); zero != tensors.end()) {
    return Shape(Code::kUnimplemented,
                 zero->first + ": codes with a zero point of their own are not read");
  }
  if (const auto inverse = beside(kScaleInv); inverse != tensors.end()) {
    return Shape(
        Code::kUnimplemented,
        fmt::format("{}: {}, scales of blocks, are not read; a scale a row is, or one of all",
                    inverse->first, describe(static_cast<const StoredShape&>(inverse->second))));
  }
  const auto scale = beside(kWeightScale);
  if (scale == tensors.end() && beside(kScb) == tensors.end()) {
    return Shape(Code::kInvalidArgument, fmt::format("{}{}: the checkpoint has none", module,
                                                     kCode == DType::kI8 ? kScb : kWeightScale));
  }
  if (scale != tensors.end() && scale->second.shape.size() == 2 && scale->second.shape[1] > 1) {
    return Shape(
        Code::kUnimplemented,
        fmt::format("{}: expected [{}, 1] or [1], a scale a row or one of all, got {}: scales of "
                    "blocks are not read",
                    scale->first, t.shape[0],
                    describe(static_cast<const StoredShape&>(scale->second))));
  }
  return checked_shape(name, t, 1);
}

/// Two codes a byte, and scales beside them.
std::optional<Shape> mxfp4_shape(const StoredTensors& tensors, std::string_view name,
                                 const StoredTensor& t) {
  const auto scales = tensors.find(joined(module_of(name), kWeightScale));
  if (t.shape.size() != 2 || t.dtype != DType::kU8 || scales == tensors.end()) return {};
  return checked_shape(name, t, 2);
}

/// How files store a format.
struct StoredForm {
  WeightFormat format;
  /// [N, K] of a tensor that is stored so, or why it is not read; nothing: it is something else.
  std::optional<Shape> (*shape)(const StoredTensors& tensors, std::string_view name,
                                const StoredTensor& t);
  /// What is beside the weight, under its own name and under its module's.
  std::vector<std::string_view> of_weight, of_module;
};

std::span<const StoredForm> stored_forms() {
  static const StoredForm kForms[] = {
      {WeightFormat::kNf4,
       four_bit_shape<WeightFormat::kNf4>,
       {kAbsmax, kQuantMap, kNestedAbsmax, kNestedMap, kNf4State},
       {}},
      {WeightFormat::kFp4,
       four_bit_shape<WeightFormat::kFp4>,
       {kAbsmax, kQuantMap, kNestedAbsmax, kNestedMap, kFp4State},
       {}},
      {WeightFormat::kInt8,
       shape_of_codes<DType::kI8>,
       {},
       {kScb, kWeightFormat, kWeightScale, kInputScale, kInputZero}},
      {WeightFormat::kFp8,
       shape_of_codes<DType::kF8E4M3>,
       {},
       {kWeightScale, kInputScale, kInputZero}},
      {WeightFormat::kMxfp4, mxfp4_shape, {}, {kWeightScale}},
  };
  return kForms;
}

}  // namespace

Result<StoredWeight> stored_weight(const StoredTensors& tensors, std::string_view name) {
  const auto it = tensors.find(name);
  if (it == tensors.end()) return {Code::kNotFound, fmt::format("the checkpoint has no {}", name)};
  const StoredTensor& t = it->second;
  for (const StoredForm& form : stored_forms()) {
    const std::optional<Shape> shape = form.shape(tensors, name, t);
    if (!shape) continue;
    if (!*shape) return shape->error();
    const bool nested =
        !is_four_bit(form.format) || four_bit_state(tensors, name, form.format)->nested;
    return StoredWeight{form.format, **shape, nested};
  }
  if (tensors.contains(joined(name, kAbsmax))) {
    return {Code::kInvalidArgument, fmt::format("{}: has an absmax and no {} or {}", name,
                                                kNf4State.substr(1), kFp4State.substr(1))};
  }
  return StoredWeight{WeightFormat::kDense, t.shape};
}

bool belongs_to_quantized(const StoredTensors& tensors, std::string_view name) {
  const auto beside = [&](std::string_view suffix, std::string_view weight) {
    return name.ends_with(suffix) &&
           tensors.contains(joined(name.substr(0, name.size() - suffix.size()), weight));
  };
  for (const StoredForm& form : stored_forms()) {
    for (const std::string_view suffix : form.of_weight)
      if (beside(suffix, "")) return true;
    for (const std::string_view suffix : form.of_module)
      if (beside(suffix, kWeight)) return true;
  }
  return beside(kFingerprint, kWeight) || beside(kChecksum, kWeight);
}

}  // namespace vlr
