#include "kernels/core/format_bytes.h"

#include <fmt/format.h>

#include <cmath>

namespace vlr {
namespace {

std::string format(int64_t bytes, double (*round)(double)) {
  constexpr int64_t kStep = 1024;
  if (bytes > -kStep && bytes < kStep) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (*unit && std::abs(value) < double{kStep}) break;
    value /= double{kStep};
    unit = larger;
  }
  return fmt::format("{:.2f} {}", round(value * 100) / 100, unit);
}

}  // namespace

std::string format_bytes(int64_t bytes) {
  return format(bytes, [](double v) { return std::nearbyint(v); });
}

std::string format_bytes_up(int64_t bytes) {
  return format(bytes, [](double v) { return std::ceil(v); });
}

}  // namespace vlr
