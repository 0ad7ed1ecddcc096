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
                              json->contains(key) ? shown((*json)[key]) : "none"));
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
  const bool has_absmax = kCode == DType::kI8 && beside(kScb) != tensors.end();
  if (scale == tensors.end() && !has_absmax) {
    return Shape(Code::kInvalidArgument, fmt::format("{}{}: the checkpoint has none", module,
                                                     kCode == DType::kI8 ? kScb : kWeightScale));
  }
  if (scale != tensors.end() && has_absmax)
    return Shape(Code::kInvalidArgument, fmt::format("{}: has a {} and a {}, expected one of them",
                                                     name, kScb.substr(1), kWeightScale.substr(1)));
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

/// A tensor beside a weight: where its name hangs, and when it is there.
struct Beside {
  std::string_view suffix;
  bool of_module = false;  ///< under the module's name, otherwise under the weight's
  enum When { kAlways, kNested, kMaybe } when = kAlways;
};

/// How files store a format.
struct StoredForm {
  WeightFormat format;
  /// [N, K] of a tensor that is stored so, or why it is not read; nothing: it is something else.
  std::optional<Shape> (*shape)(const StoredTensors& tensors, std::string_view name,
                                const StoredTensor& t);
  std::vector<Beside> beside;  ///< all that is read with it, or left out of what is read
};

std::span<const StoredForm> stored_forms() {
  constexpr bool kOfModule = true;
  constexpr Beside kOwn[] = {{kFingerprint, kOfModule, Beside::kMaybe},
                             {kChecksum, kOfModule, Beside::kMaybe}};
  const auto with_own = [&](std::vector<Beside> list) {
    list.insert(list.end(), std::begin(kOwn), std::end(kOwn));
    return list;
  };
  const auto four_bit = [&](std::string_view state) {
    return with_own({{kAbsmax},
                     {kQuantMap},
                     {kNestedAbsmax, false, Beside::kNested},
                     {kNestedMap, false, Beside::kNested},
                     {state}});
  };
  const Beside scale = {kWeightScale, kOfModule};
  const Beside input_scale = {kInputScale, kOfModule, Beside::kMaybe},
               input_zero = {kInputZero, kOfModule, Beside::kMaybe};
  static const StoredForm kForms[] = {
      {WeightFormat::kNf4, four_bit_shape<WeightFormat::kNf4>, four_bit(kNf4State)},
      {WeightFormat::kFp4, four_bit_shape<WeightFormat::kFp4>, four_bit(kFp4State)},
      {WeightFormat::kInt8, shape_of_codes<DType::kI8>,
       // One of two scales, as shape_of_codes() asks.
       with_own({{kScb, kOfModule, Beside::kMaybe},
                 {kWeightScale, kOfModule, Beside::kMaybe},
                 {kWeightFormat, kOfModule, Beside::kMaybe},
                 input_scale,
                 input_zero})},
      {WeightFormat::kFp8, shape_of_codes<DType::kF8E4M3>,
       with_own({scale, input_scale, input_zero})},
      {WeightFormat::kMxfp4, mxfp4_shape, with_own({scale})},
  };
  return kForms;
}

std::string name_beside(std::string_view weight, const Beside& beside) {
  return beside.of_module ? joined(module_of(weight), beside.suffix)
                          : joined(weight, beside.suffix);
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
    for (const Beside& beside : form.beside) {
      const std::string needed = name_beside(name, beside);
      if ((beside.when == Beside::kAlways || (beside.when == Beside::kNested && nested)) &&
          !tensors.contains(needed))
        return {Code::kInvalidArgument, needed + ": the checkpoint has none"};
    }
    return StoredWeight{form.format, **shape, nested};
  }
  if (tensors.contains(joined(name, kAbsmax))) {
    return {Code::kInvalidArgument, fmt::format("{}: has an absmax and no {} or {}", name,
                                                kNf4State.substr(1), kFp4State.substr(1))};
  }
  return StoredWeight{WeightFormat::kDense, t.shape};
}

bool belongs_to_quantized(const StoredTensors& tensors, std::string_view name) {
  for (const StoredForm& form : stored_forms()) {
    for (const Beside& beside : form.beside) {
      if (!name.ends_with(beside.suffix)) continue;
      std::string weight(name.substr(0, name.size() - beside.suffix.size()));
      if (beside.of_module) weight += kWeight;
      if (!tensors.contains(weight)) continue;
      const Result<StoredWeight> stored = stored_weight(tensors, weight);
      if (!stored) return true;  // which is what will be said
      if (stored->format == form.format &&
          (beside.when != Beside::kNested || stored->nested_scales))
        return true;
    }
  }
  return false;
}

}  // namespace vlr
