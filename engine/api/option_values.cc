// Values of options as text, and what they may be.
#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "engine/api/options.h"

namespace vlr {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;  // clang 16 wants it said

struct SizeUnit {
  std::string_view name;
  int64_t bytes;
};
// Those that format_option() writes come first, the largest at the front.
constexpr SizeUnit kUnits[] = {
    {"TiB", int64_t{1} << 40},
    {"GiB", int64_t{1} << 30},
    {"MiB", int64_t{1} << 20},
    {"KiB", int64_t{1} << 10},
    {"TB", 1'000'000'000'000},
    {"GB", 1'000'000'000},
    {"MB", 1'000'000},
    {"KB", 1'000},
    {"T", 1'000'000'000'000},
    {"G", 1'000'000'000},
    {"M", 1'000'000},
    {"K", 1'000},
    {"B", 1},
    {"", 1},
};
constexpr size_t kWritten = 4;

bool same_letters(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

template <class T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<bool> bool_of(std::string_view text) {
  for (const std::string_view yes : {"true", "1", "yes", "on"}) {
    if (same_letters(text, yes)) return true;
  }
  for (const std::string_view no : {"false", "0", "no", "off"}) {
    if (same_letters(text, no)) return false;
  }
  return {};
}

/// The parts between commas that are not empty, so that what they are written as gives them back.
std::vector<std::string> list_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = trimmed(text.substr(0, comma));
    if (!part.empty()) out.emplace_back(part);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

std::string size_text(int64_t bytes) {
  for (const SizeUnit& unit : std::span(kUnits).first(kWritten)) {
    if (bytes != 0 && bytes % unit.bytes == 0)
      return fmt::format("{}{}", bytes / unit.bytes, unit.name);
  }
  return std::to_string(bytes);
}

/// "auto, f32, bf16 or f16".
std::string choices_text(std::span<const std::string_view> choices) {
  std::string out;
  for (size_t i = 0; i < choices.size(); ++i)
    out += fmt::format("{}{}", i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ", choices[i]);
  return out;
}

Status wrong(const OptionInfo& info, std::string_view expected, std::string_view found) {
  return {Code::kInvalidArgument,
          fmt::format("options: {} must be {}, got {}", info.name, expected, found)};
}

Status check_choice(const OptionInfo& info, const std::string& value) {
  for (const std::string_view c : info.choices) {
    if (c == value) return {};
  }
  return wrong(info, choices_text(info.choices), fmt::format("'{}'", value));
}

Status check_whole(const OptionInfo& info, int64_t value) {
  const std::string found = info.is_size() ? size_text(value) : std::to_string(value);
  if (value % info.multiple_of != 0)
    return wrong(info, fmt::format("a multiple of {}", info.multiple_of), found);
  if (info.least && value < *info.least)
    return wrong(info, fmt::format("at least {}", *info.least), found);
  if (info.most && value > *info.most)
    return wrong(info, fmt::format("at most {}", *info.most), found);
  return {};
}

}  // namespace

std::string_view option_type_name(const OptionInfo& info) {
  if (info.is_size()) return "bytes";
  return std::visit(Overloaded{[](bool Options::*) { return "true or false"; },
                               [](int Options::*) { return "whole number"; },
                               [](int64_t Options::*) { return "whole number"; },
                               [](double Options::*) { return "number"; },
                               [](std::string Options::*) { return "text"; },
                               [](std::vector<std::string> Options::*) { return "list"; },
                               [](std::map<std::string, std::string> Options::*) { return "map"; }},
                    info.member);
}

Result<int64_t> parse_size(std::string_view text) {
  const std::string_view all = trimmed(text);
  const size_t digits = std::min(all.find_first_not_of("+-.0123456789"), all.size());
  const std::string_view number = all.substr(0, digits), unit = trimmed(all.substr(digits));
  for (const SizeUnit& u : kUnits) {
    if (!same_letters(unit, u.name)) continue;
    if (const auto whole = number_of<int64_t>(number)) {
      int64_t bytes = 0;
      if (!__builtin_mul_overflow(*whole, u.bytes, &bytes)) return bytes;
    } else if (const auto part = number_of<double>(number)) {
      const double bytes = std::nearbyint(*part * static_cast<double>(u.bytes));
      if (std::abs(bytes) < 0x1p62) return static_cast<int64_t>(bytes);
    }
    break;
  }
  return {Code::kInvalidArgument,
          fmt::format("must be a number of bytes, as in 20GB or 1.5GiB, got '{}'", text)};
}

Status parse_option(const OptionInfo& info, std::string_view text, Options& options) {
  const auto no = [&](std::string_view expected) {
    return wrong(info, expected, fmt::format("'{}'", text));
  };
  const auto number = [&](auto member, std::string_view expected) -> Status {
    using T = std::remove_reference_t<decltype(options.*member)>;
    const auto value = number_of<T>(trimmed(text));
    if (!value) return no(expected);
    options.*member = *value;
    return {};
  };
  return std::visit(Overloaded{
                        [&](bool Options::*member) -> Status {
                          const auto value = bool_of(trimmed(text));
                          if (!value) return no("true or false");
                          options.*member = *value;
                          return {};
                        },
                        [&](int Options::*member) { return number(member, "a whole number"); },
                        [&](int64_t Options::*member) -> Status {
                          if (!info.is_size()) return number(member, "a whole number");
                          const auto bytes = parse_size(text);
                          if (!bytes) {
                            return {bytes.error().code(), fmt::format("options: {} {}", info.name,
                                                                      bytes.error().message())};
                          }
                          options.*member = *bytes;
                          return {};
                        },
                        [&](double Options::*member) { return number(member, "a number"); },
                        [&](std::string Options::*member) -> Status {
                          options.*member = text;
                          return {};
                        },
                        [&](std::vector<std::string> Options::*member) -> Status {
                          options.*member = list_of(text);
                          return {};
                        },
                        [&](std::map<std::string, std::string> Options::*member) -> Status {
                          std::map<std::string, std::string> value;
                          for (const std::string& entry : list_of(text)) {
                            const size_t equals = entry.find('=');
                            if (equals == 0 || equals == std::string::npos)
                              return no("entries of the form op=name");
                            value[entry.substr(0, equals)] = entry.substr(equals + 1);
                          }
                          options.*member = std::move(value);
                          return {};
                        },
                    },
                    info.member);
}

std::string format_option(const OptionInfo& info, const Options& options) {
  return std::visit(
      [&](auto member) -> std::string {
        const auto& value = options.*member;
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return value;
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          return fmt::format("{}", fmt::join(value, ","));
        } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
          std::string out;
          for (const auto& [key, of] : value)
            out += fmt::format("{}{}={}", out.empty() ? "" : ",", key, of);
          return out;
        } else {
          if constexpr (std::is_same_v<T, int64_t>) {
            if (info.is_size()) return size_text(value);
          }
          return fmt::format("{}", value);  // of a double the shortest text that gives it back
        }
      },
      info.member);
}

Status check_option(const OptionInfo& info, const Options& options) {
  const Status status = std::visit(
      Overloaded{[](bool Options::*) { return Status(); },
                 [&](int Options::*member) { return check_whole(info, options.*member); },
                 [&](int64_t Options::*member) { return check_whole(info, options.*member); },
                 [&](double Options::*member) {
                   const double value = options.*member;
                   if (value > 0 && std::isfinite(value)) return Status();
                   return wrong(info, "finite and above 0", fmt::format("{}", value));
                 },
                 [&](std::string Options::*member) {
                   return info.choices.empty() ? Status() : check_choice(info, options.*member);
                 },
                 [&](std::vector<std::string> Options::*member) -> Status {
                   if (info.choices.empty()) return {};
                   for (const std::string& value : options.*member)
                     VLR_RETURN_IF_ERROR(check_choice(info, value));
                   return {};
                 },
                 [](std::map<std::string, std::string> Options::*) { return Status(); }},
      info.member);
  VLR_RETURN_IF_ERROR(status);
  return info.check ? info.check(options).with_context("options") : Status();
}

Status check_options(const Options& options) {
  for (const OptionInfo& info : option_table()) VLR_RETURN_IF_ERROR(check_option(info, options));
  return {};
}

namespace {

Status no_option(std::string_view name) {
  return {Code::kInvalidArgument,
          fmt::format("options: there is no option '{}'; docs/options.md lists them", name)};
}

}  // namespace

std::vector<std::string_view> option_names() {
  std::vector<std::string_view> out;
  for (const OptionInfo& info : option_table()) out.push_back(info.name);
  return out;
}

Status set_option(Options& options, std::string_view name, std::string_view text) {
  const OptionInfo* info = find_option(name);
  if (!info) return no_option(name);
  Options changed = options;
  VLR_RETURN_IF_ERROR(parse_option(*info, text, changed));
  VLR_RETURN_IF_ERROR(check_option(*info, changed));
  options = std::move(changed);
  return {};
}

Result<std::string> get_option(const Options& options, std::string_view name) {
  const OptionInfo* info = find_option(name);
  if (!info) return no_option(name);
  return format_option(*info, options);
}

}  // namespace vlr
