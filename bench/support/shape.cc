#include "bench/support/shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

namespace vlr::bench {
namespace {

constexpr size_t kMostShapes = 1000;
constexpr int64_t kMostValue = int64_t{1} << 40;

Status invalid(std::string message) { return {Code::kInvalidArgument, std::move(message)}; }

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(at, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == text.npos) return parts;
    begin = end + 1;
  }
}

Result<int64_t> parse_value(const Axis& axis, std::string_view text) {
  for (size_t i = 0; i < axis.names.size(); ++i) {
    if (axis.names[i] == text) return static_cast<int64_t>(i);
  }
  if (!axis.names.empty())
    return invalid(fmt::format("{} must be one of {}, got '{}'", axis.name,
                               fmt::join(axis.names, ", "), text));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > kMostValue)
    return invalid(fmt::format("{} must be a whole number, got '{}'", axis.name, text));
  return value;
}

/// One entry a value of a range; a list is one entry.
Result<std::vector<std::vector<int64_t>>> parse_values(const Axis& axis, std::string_view text) {
  std::vector<std::vector<int64_t>> out;
  const auto range = split(text, ':');
  if (range.size() == 1) {
    std::vector<int64_t> list;
    for (const std::string_view part : split(text, '+')) {
      VLR_ASSIGN_OR_RETURN(const int64_t value, parse_value(axis, part));
      list.push_back(value);
    }
    if (list.size() > 1 && !axis.has_lists)
      return invalid(fmt::format("{} takes no list, got '{}'", axis.name, text));
    out.push_back(std::move(list));
    return out;
  }
  const auto usage = [&] {
    return invalid(fmt::format(
        "{} must be a number, begin:end:*factor, begin:end:+step or a list 16+300, got '{}'",
        axis.name, text));
  };
  if (range.size() != 3 || range[2].size() < 2 || !axis.names.empty()) return usage();
  const char by = range[2][0];
  VLR_ASSIGN_OR_RETURN(const int64_t begin, parse_value(axis, range[0]));
  VLR_ASSIGN_OR_RETURN(const int64_t end, parse_value(axis, range[1]));
  VLR_ASSIGN_OR_RETURN(const int64_t step, parse_value(axis, range[2].substr(1)));
  if ((by != '*' && by != '+') || begin < 1 || end < begin || step < (by == '*' ? 2 : 1))
    return usage();
  for (int64_t v = begin; v <= end && out.size() <= kMostShapes;
       v = by == '*' ? v * step : v + step)
    out.push_back({v});
  return out;
}

}  // namespace

Shape::Shape(std::span<const Axis> axes, DType d) : dtype(d) {
  for (const Axis& a : axes) values_.push_back({a, {a.value}});
}

Shape::Shape(std::span<const Axis> axes, DType d, std::string what,
             std::initializer_list<std::pair<std::string_view, int64_t>> values)
    : Shape(axes, d) {
  label = std::move(what);
  for (const auto& [name, value] : values) {
    if (const Status s = set(name, {value}); !s.ok()) throw std::invalid_argument(s.message());
  }
}

const std::vector<int64_t>& Shape::list(std::string_view axis) const {
  for (const Value& v : values_) {
    if (v.axis.name == axis) return v.values;
  }
  throw std::invalid_argument("no axis " + std::string(axis));
}

Status Shape::set(std::string_view axis, std::vector<int64_t> values) {
  std::vector<std::string_view> names;
  for (Value& v : values_) {
    if (v.axis.name == axis) {
      v.values = std::move(values);
      return {};
    }
    names.push_back(v.axis.name);
  }
  return invalid(fmt::format("no axis '{}'; there are {}", axis, fmt::join(names, ", ")));
}

std::string Shape::dtype_and_label() const {
  return label.empty() ? std::string(dtype_name(dtype))
                       : fmt::format("{}/{}", dtype_name(dtype), label);
}

std::string Shape::axes_text(bool brief) const {
  std::vector<std::string> parts;
  for (const Value& v : values_) {
    if (v.axis.names.empty() && v.axis.value == 0 && v.values == std::vector<int64_t>{0}) continue;
    const auto word = [&](int64_t value) {
      return v.axis.names.empty() ? std::to_string(value)
                                  : v.axis.names.at(static_cast<size_t>(value));
    };
    constexpr size_t kMost = 4;
    std::vector<std::string> words;
    for (const int64_t value : v.values) words.push_back(word(value));
    const bool same =
        std::ranges::all_of(words, [&](const std::string& w) { return w == words[0]; });
    if (brief && words.size() > 1 && same) {
      parts.push_back(fmt::format("{}={}x{}", v.axis.name, words.size(), words[0]));
      continue;
    }
    const bool cut = brief && words.size() > kMost;
    const size_t all = words.size();
    if (cut) words.resize(kMost);
    parts.push_back(fmt::format("{}={}{}", v.axis.name, fmt::join(words, "+"),
                                cut ? fmt::format("+... ({})", all) : ""));
  }
  return fmt::format("{}", fmt::join(parts, ","));
}

std::string Shape::name() const { return dtype_and_label() + "/" + axes_text(true); }

Result<std::vector<Shape>> parse_shapes(std::string_view text, std::span<const Axis> axes,
                                        DType dtype) {
  std::vector<Shape> shapes = {Shape(axes, dtype)};
  if (text.empty()) return shapes;
  std::vector<std::string_view> seen;
  for (const std::string_view part : split(text, ',')) {
    const size_t equals = part.find('=');
    if (equals == part.npos)
      return invalid(fmt::format("a shape must be axis=value,axis=value, got '{}'", part));
    const std::string_view name = part.substr(0, equals);
    const auto axis = std::ranges::find(axes, name, &Axis::name);
    if (axis == axes.end()) return shapes[0].set(name, {});
    if (std::ranges::count(seen, name) > 0)
      return invalid(fmt::format("{} is there twice in '{}'", name, text));
    seen.push_back(name);
    VLR_ASSIGN_OR_RETURN(const auto values, parse_values(*axis, part.substr(equals + 1)));
    if (shapes.size() * values.size() > kMostShapes)
      return invalid(fmt::format("'{}' is more than {} shapes", text, kMostShapes));
    std::vector<Shape> all;
    for (const Shape& s : shapes) {
      for (const auto& v : values) {
        all.push_back(s);
        VLR_RETURN_IF_ERROR(all.back().set(name, v));
      }
    }
    shapes = std::move(all);
  }
  return shapes;
}

Result<DType> parse_dtype(std::string_view text) {
  for (const DType d : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (dtype_name(d) == text) return d;
  }
  return invalid(fmt::format("--dtype must be f32, bf16 or f16, got '{}'", text));
}

}  // namespace vlr::bench
