#include "kernels/core/op.h"

#include <fmt/format.h>

#include <algorithm>

namespace vlr::ops {

Status invalid(std::string_view op, std::string message) {
  return {Code::kInvalidArgument, fmt::format("{}: {}", op, message)};
}

Status unsupported(std::string_view op, std::string_view impl, Device device) {
  const std::string_view on = device_name(device);
  return {Code::kUnimplemented,
          impl.empty() ? fmt::format("{}: no implementation on {} for these arguments", op, on)
                       : fmt::format("{}: '{}' on {} does not take these arguments", op, impl, on)};
}

Status no_implementation(std::string_view op, std::string_view impl, Device device,
                         std::span<const std::string_view> names) {
  return {Code::kUnimplemented,
          fmt::format("{}: no implementation '{}' on {}; there {} {}", op, impl,
                      device_name(device), names.size() == 1 ? "is" : "are",
                      names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")))};
}

Status expect_shape(std::string_view op, std::string_view operand, const ConstTensor& t,
                    std::initializer_list<int64_t> dims) {
  bool same = t.rank == static_cast<int>(dims.size());
  int i = 0;
  for (int64_t d : dims) {
    if (!same) break;
    same = d < 0 || t.dim(i) == d;
    ++i;
  }
  if (same) return {};
  std::string wanted;
  for (int64_t d : dims)
    wanted += fmt::format("{}{}", wanted.empty() ? "" : ", ", d < 0 ? "?" : std::to_string(d));
  return invalid(op, fmt::format("{} must be [{}], got {}", operand, wanted, describe(t)));
}

Status expect_same_shape(std::string_view op, std::string_view operand, const ConstTensor& t,
                         const ConstTensor& like) {
  bool same = t.rank == like.rank;
  for (int i = 0; same && i < t.rank; ++i) same = t.dim(i) == like.dim(i);
  if (same) return {};
  return invalid(op, fmt::format("{} must have the shape of {}, got {}", operand, describe(like),
                                 describe(t)));
}

Status expect_dtype(std::string_view op, std::string_view operand, const ConstTensor& t,
                    std::initializer_list<DType> allowed) {
  if (std::find(allowed.begin(), allowed.end(), t.dtype) != allowed.end()) return {};
  std::string wanted;
  for (DType d : allowed) wanted += fmt::format("{}{}", wanted.empty() ? "" : " | ", dtype_name(d));
  return invalid(op, fmt::format("{} must be {}, got {}", operand, wanted, describe(t)));
}

Status expect_rows(std::string_view op, std::string_view operand, const ConstTensor& t) {
  if (t.rank > 0 && t.dim(t.rank - 1) > 1 && t.stride(t.rank - 1) != 1) {
    return invalid(op, fmt::format("{} must be contiguous in its last axis, got stride {}", operand,
                                   t.stride(t.rank - 1)));
  }
  return {};
}

namespace {

/// The bytes that a view spans, and the step between its rows if they have a common one.
struct Extent {
  uintptr_t begin = 0;
  int64_t bytes = 0;      // from the first to past the last element
  int64_t row_bytes = 0;  // from the first to past the last element of a row
  int64_t step = 0;       // bytes from row to row; 0: one row
};

Extent extent_of(const ConstTensor& t) {
  Extent e;
  if (!t.data || t.numel() == 0) return e;
  const int64_t size = dtype_bytes(t.dtype);
  const auto reach = [&](int axis) { return (t.dim(axis) - 1) * t.stride(axis) * size; };
  e.begin = reinterpret_cast<uintptr_t>(t.data);
  e.row_bytes = size;
  for (int axis = 1; axis < t.rank; ++axis) e.row_bytes += reach(axis);
  e.bytes = e.row_bytes + (t.rank > 0 ? reach(0) : 0);
  if (t.rank > 0 && t.dim(0) > 1) e.step = t.stride(0) * size;
  return e;
}

/// Rows of one step that lie between one another, as columns of one wider matrix do.
bool interleave(const Extent& a, const Extent& b) {
  const int64_t step = std::max(a.step, b.step);
  if ((a.step != 0 && a.step != step) || (b.step != 0 && b.step != step) || step <= 0) return false;
  const int64_t ahead = static_cast<int64_t>(b.begin - a.begin) % step;
  const int64_t from_row = ahead < 0 ? ahead + step : ahead;  // of b, behind the begin of a's row
  return from_row >= a.row_bytes && from_row + b.row_bytes <= step;
}

bool overlap(const ConstTensor& a, const ConstTensor& b) {
  const Extent x = extent_of(a), y = extent_of(b);
  if (x.bytes == 0 || y.bytes == 0) return false;
  if (x.begin + static_cast<uintptr_t>(x.bytes) <= y.begin ||
      y.begin + static_cast<uintptr_t>(y.bytes) <= x.begin)
    return false;
  return !interleave(x, y);
}

bool same_view(const ConstTensor& a, const ConstTensor& b) {
  bool same = a.data == b.data && a.dtype == b.dtype && a.rank == b.rank;
  for (int i = 0; same && i < a.rank; ++i)
    same = a.dim(i) == b.dim(i) && (a.dim(i) <= 1 || a.stride(i) == b.stride(i));
  return same;
}

}  // namespace

Status expect_no_overlap(std::string_view op, std::string_view operand_y, const ConstTensor& y,
                         std::string_view operand, const ConstTensor& t) {
  if (!overlap(y, t)) return {};
  return invalid(
      op,
      fmt::format("{} must not overlap {}, which begins {} bytes from it", operand_y, operand,
                  static_cast<const std::byte*>(t.data) - static_cast<const std::byte*>(y.data)));
}

Status expect_same_or_no_overlap(std::string_view op, std::string_view operand_y,
                                 const ConstTensor& y, std::string_view operand,
                                 const ConstTensor& t) {
  return same_view(y, t) ? Status() : expect_no_overlap(op, operand_y, y, operand, t);
}

}  // namespace vlr::ops
