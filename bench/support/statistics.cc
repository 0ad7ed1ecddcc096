#include "bench/support/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace vlr::bench {
namespace {

double middle(std::vector<double>& v) {
  if (v.empty()) return 0;
  const auto half = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), half, v.end());
  if (v.size() % 2 == 1) return *half;
  return (*half + *std::max_element(v.begin(), half)) / 2;
}

}  // namespace

double median(std::span<const double> samples) {
  std::vector<double> copy(samples.begin(), samples.end());
  return middle(copy);
}

Interval median_interval(std::span<const double> samples) {
  const size_t n = samples.size();
  const double value = median(samples);
  const auto all = static_cast<int64_t>(n);
  if (n < 2 || value <= 0) return {value, value, value, all};
  constexpr int kDraws = 1000;
  const size_t block = std::max<size_t>(1, static_cast<size_t>(std::sqrt(static_cast<double>(n))));
  std::mt19937_64 rng(1);
  std::vector<double> medians, drawn;
  for (int i = 0; i < kDraws; ++i) {
    drawn.clear();
    while (drawn.size() < n) {
      const size_t begin = rng() % n;
      const size_t count = std::min(block, n - drawn.size());
      for (size_t j = 0; j < count; ++j) drawn.push_back(samples[(begin + j) % n]);
    }
    medians.push_back(middle(drawn));
  }
  std::sort(medians.begin(), medians.end());
  // Blocks vary by less than what they were drawn from, and there are few: as much wider as
  // Student's interval of so many values is than the normal one, about.
  const double length = static_cast<double>(block), blocks = static_cast<double>(n) / length;
  const double wider = std::min(1.5, (1 + 1.5 / (blocks - 1)) * std::sqrt(blocks / (blocks - 1)));
  const double low = medians[kDraws * 25 / 1000], high = medians[kDraws * 975 / 1000];
  // In the logarithm: what cannot be below 0 does not get there.
  return {value, value * std::pow(low / value, wider), value * std::pow(high / value, wider), all};
}

Interval ratio_interval(std::span<const double> a, std::span<const double> b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) ratios.push_back(b[i] / a[i]);
  return median_interval(ratios);
}

std::string_view verdict_name(Verdict v) {
  switch (v) {
    case Verdict::kFaster:
      return "FASTER";
    case Verdict::kSlower:
      return "SLOWER";
    case Verdict::kSame:
      return "SAME";
    default:
      return "UNDECIDED";
  }
}

Verdict judge(const Interval& ratio, const Interval& control, double margin) {
  const auto few = [](const Interval& i) { return i.samples >= 0 && i.samples < kFewestSamples; };
  if (few(ratio) || few(control)) return Verdict::kUndecided;
  const double noise = std::max(control.high - 1, 1 - control.low);
  const double far = std::max(margin, noise);
  if (ratio.high < 1 - far) return Verdict::kFaster;
  if (ratio.low > 1 + far) return Verdict::kSlower;
  if (noise <= margin && ratio.low >= 1 - margin && ratio.high <= 1 + margin) return Verdict::kSame;
  return Verdict::kUndecided;
}

}  // namespace vlr::bench
