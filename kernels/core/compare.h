/// How a result is held against the reference: what a Tolerance means. Tests and benches share it.
#ifndef VLR_KERNELS_CORE_COMPARE_H_
#define VLR_KERNELS_CORE_COMPARE_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/op.h"

namespace vlr {

/// The first place where a result is further from the reference than a tolerance allows.
struct Mismatch {
  int64_t index;     ///< of the element, or of the first one of the row
  bool is_row;       ///< each element of the row is near enough, all of them together are not
  double got, want;  ///< the element's; or the root mean squares of the row's errors and reference
  double distance;   ///< in tolerances

  /// "= 3, reference 2, off by 7 tolerances", to follow the name of the element.
  std::string message() const {
    const auto text = [](double v) {
      char digits[32];
      std::snprintf(digits, sizeof digits, "%g", v);
      return std::string(digits);
    };
    const std::string off = ", off by " + text(distance) + " tolerances";
    if (!is_row) return " = " + text(got) + ", reference " + text(want) + off;
    return " and the rest of its row: errors of size " + text(got) + " in a reference of size " +
           text(want) + off;
  }
};

/// Compares all elements, then the rows of `row_length` of them, where the tolerance looks at rows.
/// Where the reference is not finite the result has to be the same, and rows leave it out.
template <class T>
std::optional<Mismatch> compare(const std::vector<T>& got, const std::vector<T>& want,
                                int64_t row_length, const Tolerance& tolerance) {
  const auto at = [](const std::vector<T>& values, int64_t i) {
    return static_cast<double>(values[static_cast<size_t>(i)]);
  };
  const auto count = static_cast<int64_t>(want.size());
  for (int64_t i = 0; i < count; ++i) {
    const double y = at(got, i), ref = at(want, i), error = std::fabs(y - ref);
    const double allowed = tolerance.rel * std::fabs(ref) + tolerance.abs;
    const bool same =
        y == ref || (std::isnan(y) && std::isnan(ref)) || (std::isfinite(ref) && error <= allowed);
    if (!same) return Mismatch{i, false, y, ref, error / allowed};
  }
  if (std::isinf(tolerance.row_rel)) return std::nullopt;
  for (int64_t begin = 0; begin < count; begin += row_length) {
    double errors = 0, size = 0;
    for (int64_t i = begin; i < begin + row_length; ++i) {
      const double ref = at(want, i), error = at(got, i) - ref;
      if (!std::isfinite(ref)) continue;
      errors += error * error;
      size += ref * ref;
    }
    errors = std::sqrt(errors / static_cast<double>(row_length));
    size = std::sqrt(size / static_cast<double>(row_length));
    const double allowed = tolerance.row_rel * size + tolerance.row_abs;
    if (errors > allowed) return Mismatch{begin, true, errors, size, errors / allowed};
  }
  return std::nullopt;
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_COMPARE_H_
