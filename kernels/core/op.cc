#include "kernels/core/op.h"

#include <fmt/format.h>

#include <algorithm>

namespace vlr::ops {

Status invalid(std::string_view op, std::string message) {
  return {Code::kInvalidArgument, fmt::format("{}: {}", op, message)};
}

Status unimplemented(std::string_view op, std::string_view impl, Device device,
                     std::string_view why) {
  std::string message = fmt::format("{}: no implementation", op);
  if (!impl.empty()) message += fmt::format(" '{}'", impl);
  message += fmt::format(" on {}", device_name(device));
  if (!why.empty()) message += fmt::format(" for {}", why);
  return {Code::kUnimplemented, std::move(message)};
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

}  // namespace vlr::ops
