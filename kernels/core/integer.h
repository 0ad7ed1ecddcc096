/// Whole numbers.
#ifndef VLR_KERNELS_CORE_INTEGER_H_
#define VLR_KERNELS_CORE_INTEGER_H_

#include <cstdint>

namespace vlr {

/// a / b, rounded up; a >= 0, b > 0.
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/// The next multiple of `step`.
constexpr int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_INTEGER_H_
