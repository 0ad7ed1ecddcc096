#include "bench/support/cu_kernel.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>

namespace vlr::bench {
namespace {

Status invalid(std::string message) { return {Code::kInvalidArgument, std::move(message)}; }

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  return begin == text.npos
             ? std::string()
             : std::string(text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1));
}

/// sum = product (+|- product)*, product = unit (*|/ unit)*, unit = number | name | (sum).
class Expression {
 public:
  Expression(std::string_view text, const Fields& fields) : text_(text), fields_(fields) {}

  Result<int64_t> value() {
    VLR_ASSIGN_OR_RETURN(const int64_t v, sum());
    skip_spaces();
    if (at_ == text_.size()) return v;
    return broken();
  }

 private:
  Status broken() const {
    return invalid(
        fmt::format("'{}' is no expression of numbers, sizes as x.0, + - * / and (): "
                    "stopped at character {}",
                    text_, at_ + 1));
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool take(char c) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  Result<int64_t> sum() {
    VLR_ASSIGN_OR_RETURN(int64_t v, product());
    for (;;) {
      const bool plus = take('+');
      if (!plus && !take('-')) return v;
      VLR_ASSIGN_OR_RETURN(const int64_t other, product());
      v = plus ? v + other : v - other;
    }
  }
  Result<int64_t> product() {
    VLR_ASSIGN_OR_RETURN(int64_t v, unit());
    for (;;) {
      const bool times = take('*');
      if (!times && !take('/')) return v;
      VLR_ASSIGN_OR_RETURN(const int64_t other, unit());
      if (!times && other == 0) return invalid(fmt::format("'{}' divides by zero", text_));
      v = times ? v * other : v / other;
    }
  }
  Result<int64_t> unit() {
    if (take('(')) {
      VLR_ASSIGN_OR_RETURN(const int64_t v, sum());
      if (!take(')')) return broken();
      return v;
    }
    skip_spaces();
    const size_t begin = at_;
    const auto is_word = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '_' || c == '.';
    };
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word.empty()) return broken();
    int64_t number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error == std::errc() && end == word.data() + word.size()) return number;
    return size_of(word);
  }
  /// Of "x.0" or "x.s0".
  Result<int64_t> size_of(std::string_view word) const {
    const size_t dot = word.find('.');
    for (const Field& f : fields_) {
      if (dot == word.npos || f.name != word.substr(0, dot)) continue;
      std::string_view axis = word.substr(dot + 1);
      const bool stride = axis.starts_with('s');
      if (stride) axis.remove_prefix(1);
      int i = -1;
      std::from_chars(axis.data(), axis.data() + axis.size(), i);
      if (i < 0 || i >= f.tensor.rank || axis.size() != 1) break;
      return stride ? f.tensor.stride(i) : f.tensor.dim(i);
    }
    return invalid(fmt::format("'{}' is no size or stride of an operand", word));
  }

  std::string_view text_;
  const Fields& fields_;
  size_t at_ = 0;
};

Status read_three(std::string_view text, std::array<std::string, 3>& out) {
  size_t i = 0;
  for (size_t begin = 0; begin <= text.size(); ++i) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    if (i == out.size()) return invalid("at most three numbers");
    out[i] = trimmed(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return {};
}

}  // namespace

Result<int64_t> evaluate(std::string_view expression, const Fields& fields) {
  return Expression(expression, fields).value();
}

bool CuKernel::takes(const Fields& fields) const {
  const auto tensor = [&](const std::string& name) -> const ConstTensor* {
    for (const Field& f : fields) {
      if (f.name == name && !f.is_number) return &f.tensor;
    }
    return nullptr;
  };
  for (const auto& [name, rank] : header_.ranks) {
    if (const ConstTensor* t = tensor(name); !t || t->rank != rank) return false;
  }
  for (const auto& [name, dtype] : header_.dtypes) {
    if (const ConstTensor* t = tensor(name); !t || dtype_name(t->dtype) != dtype) return false;
  }
  return true;
}

Result<CuHeader> parse_cu_header(std::string_view source) {
  constexpr std::string_view kMark = "// vlr:";
  CuHeader header;
  std::istringstream lines{std::string(source)};
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (!line.starts_with(kMark)) continue;
    std::istringstream words(line.substr(kMark.size()));
    std::string key, rest;
    words >> key;
    std::getline(words, rest);
    rest = trimmed(rest);
    Status s;
    if (key == "op")
      header.op = rest;
    else if (key == "kernel")
      header.kernel = rest;
    else if (key == "grid")
      s = read_three(rest, header.grid);
    else if (key == "block")
      s = read_three(rest, header.block);
    else if (key == "shared")
      header.shared = rest;
    else if (key == "args") {
      std::istringstream args(rest);
      for (std::string arg; args >> arg;) header.args.push_back(arg);
    } else if (key == "rank") {
      std::istringstream what(rest);
      std::string name;
      int rank = 0;
      if (what >> name >> rank)
        header.ranks.emplace_back(name, rank);
      else
        s = invalid("rank wants an operand and a number: rank x 2");
    } else if (key == "dtype") {
      std::istringstream what(rest);
      std::string name, dtype;
      if (what >> name >> dtype)
        header.dtypes.emplace_back(name, dtype);
      else
        s = invalid("dtype wants an operand and a dtype: dtype x bf16");
    } else {
      s = invalid(
          fmt::format("'{}' is none of op, kernel, grid, block, shared, args, rank, dtype", key));
    }
    VLR_RETURN_IF_ERROR(s.with_context(fmt::format("line {}", number)));
  }
  if (header.op.empty() || header.kernel.empty() || header.args.empty())
    return invalid("the lines '// vlr: op', '// vlr: kernel' and '// vlr: args' are needed");
  return header;
}

}  // namespace vlr::bench
