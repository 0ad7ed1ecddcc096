#include "bench/support/errors.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <random>

#include "bench/support/op_lab.h"
#include "kernels/core/compare.h"
#include "kernels/core/load.h"
#include "kernels/quant/eight_bit.h"

namespace vlr::bench {
namespace {

/// Values of a dtype in order, as whole numbers: neighbours differ by one.
int64_t rank_of(float v, DType dtype) {
  const auto ordered = [](int64_t magnitude, bool negative) {
    return negative ? -magnitude : magnitude;
  };
  switch (dtype) {
    case DType::kI8:
      return std::lround(v);
    case DType::kF8E4M3: {
      const uint8_t bits = f32_to_e4m3(v);
      return ordered(bits & 0x7f, (bits & 0x80) != 0);
    }
    case DType::kBF16: {
      const uint16_t bits = f32_to_bf16(v);
      return ordered(bits & 0x7fff, (bits & 0x8000) != 0);
    }
    case DType::kF16: {
      const uint16_t bits = f32_to_f16(v);
      return ordered(bits & 0x7fff, (bits & 0x8000) != 0);
    }
    default: {
      const auto bits = std::bit_cast<uint32_t>(v);
      return ordered(bits & 0x7fffffff, (bits >> 31) != 0);
    }
  }
}

std::string index_of(size_t i, const Tensor& t) {
  std::string out;
  auto rest = static_cast<int64_t>(i);
  for (int axis = t.rank - 1; axis >= 0; --axis) {
    out = (axis > 0 ? ", " : "[") + std::to_string(rest % t.dim(axis)) + out;
    rest /= t.dim(axis);
  }
  return out + "]";
}

}  // namespace

std::string place_of(size_t element, std::span<const Tensor> parts, const Tensor& whole) {
  auto rest = static_cast<int64_t>(element);
  for (const Tensor& t : parts) {
    if (rest >= t.numel()) {
      rest -= t.numel();
      continue;
    }
    int64_t offset = (t.as<std::byte>() - whole.as<std::byte>()) / dtype_bytes(t.dtype);
    for (int axis = t.rank - 1; axis >= 0; --axis) {
      offset += rest % t.dim(axis) * t.stride(axis);
      rest /= t.dim(axis);
    }
    std::string out = "[";
    for (int axis = 0; axis < whole.rank; ++axis) {
      const int64_t stride = std::max<int64_t>(whole.stride(axis), 1);
      out += (axis > 0 ? ", " : "") + std::to_string(offset / stride);
      offset %= stride;
    }
    return out + "]";
  }
  return "[]";
}

uint64_t seed_of_places() {
  static const uint64_t seed = [] {
    const char* text = std::getenv("VLR_LAB_SEED");
    return text ? std::strtoull(text, nullptr, 10) : std::random_device()();
  }();
  return seed;
}

int64_t span_of(const Tensor& t) {
  int64_t span = 0;
  if (t.numel() == 0) return 0;
  for (int axis = 0; axis < t.rank; ++axis) span += (t.dim(axis) - 1) * t.stride(axis);
  return span + 1;
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

std::vector<float> values_of(const Tensor& t) {
  std::vector<float> out;
  out.reserve(static_cast<size_t>(t.numel()));
  for_each_element(t, [&](int64_t at) {
    out.push_back(t.dtype == DType::kI8       ? static_cast<float>(t.as<int8_t>()[at])
                  : t.dtype == DType::kF8E4M3 ? e4m3_to_f32(t.as<uint8_t>()[at])
                                              : load_f32(t, at));
  });
  return out;
}

void append_bytes(const Tensor& host, std::vector<std::byte>& out) {
  const int64_t size = dtype_bytes(host.dtype);
  if (host.numel() == 0) return;
  // A row of the last axis at a time: contracts have it contiguous.
  Tensor rows = host;
  const int64_t length = host.rank > 0 ? host.dim(host.rank - 1) : 1;
  if (host.rank > 0) rows.dims[static_cast<size_t>(host.rank - 1)] = 1;
  for_each_element(rows, [&](int64_t at) {
    const auto* p = host.as<std::byte>() + at * size;
    out.insert(out.end(), p, p + length * size);
  });
}

Errors compare_values(const std::vector<float>& got, const std::vector<float>& want,
                      const Tensor& output, const Tolerance& tolerance,
                      const std::vector<std::pair<std::string, std::vector<float>>>& inputs,
                      const std::function<std::string(size_t)>& place, const std::string& other) {
  const auto name = [&](size_t i) { return place ? place(i) : index_of(i, output); };
  constexpr size_t kBuckets = 12;
  Errors e;
  e.elements = static_cast<int64_t>(want.size());
  e.ulps.assign(kBuckets, 0);
  std::vector<double> distances;
  distances.reserve(want.size());
  double sum = 0, reference_sum = 0;
  size_t worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double y = static_cast<double>(got[i]), ref = static_cast<double>(want[i]);
    const bool equal = y == ref || (std::isnan(y) && std::isnan(ref));
    const bool finite = std::isfinite(y) && std::isfinite(ref);
    const double distance = equal ? 0 : finite ? std::fabs(y - ref) : INFINITY;
    const double allowed = tolerance.rel * std::fabs(ref) + tolerance.abs;
    const double times = equal ? 0 : finite && allowed > 0 ? distance / allowed : INFINITY;
    if (times > 1) ++e.wrong;
    if (times > e.worst) {
      e.worst = times;
      worst = i;
    }
    distances.push_back(distance);
    if (finite) {
      sum += distance * distance;
      reference_sum += ref * ref;
    }
    const int64_t steps =
        equal    ? 0
        : finite ? std::abs(rank_of(got[i], output.dtype) - rank_of(want[i], output.dtype))
                 : int64_t{1} << 40;
    const auto bucket =
        steps <= 1 ? static_cast<size_t>(steps)
                   : static_cast<size_t>(1 + std::bit_width(static_cast<uint64_t>(steps - 1)));
    ++e.ulps[std::min(bucket, kBuckets - 1)];
  }
  if (want.empty()) return e;
  const auto n = static_cast<double>(want.size());
  e.rms = std::sqrt(sum / n);
  e.reference_rms = std::sqrt(reference_sum / n);
  e.max_abs = *std::ranges::max_element(distances);
  const auto at = distances.begin() + static_cast<std::ptrdiff_t>(0.999 * (n - 1));
  std::nth_element(distances.begin(), at, distances.end());
  e.p999_abs = *at;
  const int64_t row = output.rank > 0 ? output.dim(output.rank - 1) : 1;
  if (const auto mismatch = compare(got, want, row, tolerance); mismatch && mismatch->is_row) {
    // Each element is near enough, all of a row together are not.
    e.wrong += row;
    e.worst = std::max(e.worst, mismatch->distance);
    e.worst_index = mismatch->index;
    e.worst_at = name(static_cast<size_t>(mismatch->index)) + mismatch->message();
    return e;
  }
  if (e.worst > 0) {
    e.worst_index = static_cast<int64_t>(worst);
    e.worst_at = fmt::format("{} = {:.9g}, {} {:.9g}, {:.3g} tolerances", name(worst), got[worst],
                             other, want[worst], e.worst);
    for (const auto& [input, values] : inputs) {
      if (worst < values.size())
        e.worst_at += fmt::format("; {}{} = {:.9g}", input, name(worst), values[worst]);
    }
  }
  return e;
}

int64_t host_cache_bytes() {
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? bytes : 0;
}

int64_t number_of_sets(const Cost& cost, int64_t bytes, int64_t cache_bytes, int64_t most_bytes) {
  constexpr int64_t kMaxSets = 512;
  const auto for_traffic = static_cast<int64_t>(
      std::ceil(5 * static_cast<double>(cache_bytes) / std::max(cost.bytes, 1.0)));
  return std::clamp<int64_t>(
      std::min({for_traffic, most_bytes / std::max<int64_t>(bytes, 1), kMaxSets}), 2, kMaxSets);
}

}  // namespace vlr::bench
