#include "kernels/quant/four_bit.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/integer.h"
#include "kernels/core/widen.h"
#include "kernels/quant/absmax.h"

namespace vlr {
namespace {

/// Of an ascending codebook the thresholds between neighbours: the code of a value is the number of
/// thresholds below it, so that a tie goes to the lower one.
template <size_t kSize>
constexpr std::array<float, kSize - 1> midpoints(std::span<const float, kSize> codebook) {
  std::array<float, kSize - 1> out{};
  for (size_t i = 0; i + 1 < kSize; ++i) out[i] = (codebook[i] + codebook[i + 1]) / 2;
  return out;
}

constexpr std::array<float, 15> kNf4Thresholds = midpoints(std::span(kNf4Codebook));
/// fp4's codes of its sizes, ascending: ties go to the smaller one, whatever the sign.
constexpr std::array<uint8_t, 8> kFp4Codes = {0, 1, 6, 7, 4, 5, 2, 3};
constexpr std::array<float, 7> kFp4Thresholds = [] {
  std::array<float, 8> sizes{};
  for (size_t i = 0; i < 8; ++i) sizes[i] = kFp4Codebook[kFp4Codes[i]];
  return midpoints(std::span<const float, 8>(sizes));
}();

/// 0, 1, and with either sign 2^e values for each power 10^(e - 6), e in [0, 7): the centres of
/// equal intervals of [0.1, 1], scaled. bitsandbytes has the intervals' ends from torch.linspace,
/// which counts from the nearer end and rounds once a step: hence fma.
std::array<float, 256> make_dynamic_map() {
  constexpr float kPowers[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  std::array<float, 256> map{0, 1};
  size_t n = 2;
  for (int e = 0; e < 7; ++e) {
    const int intervals = 1 << e;
    const float step = (1.0f - 0.1f) / static_cast<float>(intervals);
    const auto end = [&](int i) {
      return 2 * i < intervals ? std::fma(step, static_cast<float>(i), 0.1f)
                               : std::fma(-step, static_cast<float>(intervals - i), 1.0f);
    };
    for (int i = 0; i < intervals; ++i) {
      const float value = kPowers[e] * ((end(i) + end(i + 1)) / 2);
      map[n++] = value;
      map[n++] = -value;
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

/// Codes of 64 values in [-1, 1].
void encode_unit(WeightFormat format, const float* v, int32_t* code) {
  if (format == WeightFormat::kNf4) {
    for (float threshold : kNf4Thresholds) {
      for (int64_t i = 0; i < kFourBitBlock; ++i) code[i] += v[i] > threshold;
    }
    return;
  }
  for (float threshold : kFp4Thresholds) {
    for (int64_t i = 0; i < kFourBitBlock; ++i) code[i] += std::fabs(v[i]) > threshold;
  }
  for (int64_t i = 0; i < kFourBitBlock; ++i)
    code[i] = kFp4Codes[static_cast<size_t>(code[i])] | (v[i] < 0 ? 8 : 0);
}

/// Values [begin, begin + count) of `values`, at most 64 of them -> their codes. Returns the
/// absmax.
float encode_block(WeightFormat format, const ConstTensor& values, int64_t begin, int64_t count,
                   uint8_t* codes) {
  float v[kFourBitBlock] = {};  // an odd block's last byte ends with the code of zero
  widen(values, begin, count, v);
  const float most = absmax(v, kFourBitBlock);
  const float inverse = 1 / std::max(most, 1e-38f);  // of a block of zeros, every code is that of 0
  int32_t code[kFourBitBlock] = {};
  for (float& x : v) x *= inverse;
  encode_unit(format, v, code);
  for (int64_t i = 0; i < count; i += 2)
    codes[i / 2] = static_cast<uint8_t>(code[i] << 4 | code[i + 1]);
  return most;
}

}  // namespace

std::span<const float, 256> dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map();
  return map;
}

FourBitTensor encode_four_bit(WeightFormat format, const ConstTensor& values, ThreadPool& threads) {
  const int64_t numel = values.numel();
  const int64_t blocks = ceil_div(numel, kFourBitBlock),
                groups = ceil_div(blocks, kFourBitNestedBlock);
  FourBitTensor out;
  out.codes.resize(static_cast<size_t>(ceil_div(numel, 2)));
  out.absmax.resize(static_cast<size_t>(blocks));
  out.nested_absmax.resize(static_cast<size_t>(groups));
  if (numel == 0) return out;
  const auto group_size = [&](int64_t g) {
    return std::min(kFourBitNestedBlock, blocks - g * kFourBitNestedBlock);
  };

  std::vector<float> absmaxes(static_cast<size_t>(blocks));
  threads.parallel_for(groups, [&](int64_t g, int) {
    const int64_t first = g * kFourBitNestedBlock;
    for (int64_t b = first; b < first + group_size(g); ++b) {
      const int64_t begin = b * kFourBitBlock, count = std::min(kFourBitBlock, numel - begin);
      absmaxes[static_cast<size_t>(b)] =
          encode_block(format, values, begin, count, out.codes.data() + begin / 2);
    }
  });

  // torch sums in f32, in an order that depends on the machine: its mean may be off in the last
  // bit.
  double sum = 0;
  for (float a : absmaxes) sum += a;
  out.offset = static_cast<float>(sum / static_cast<double>(blocks));

  const std::array<float, 255> thresholds = midpoints(dynamic_map());
  threads.parallel_for(groups, [&](int64_t g, int) {
    float* a = absmaxes.data() + g * kFourBitNestedBlock;
    uint8_t* codes = out.absmax.data() + g * kFourBitNestedBlock;
    const int64_t count = group_size(g);
    for (int64_t b = 0; b < count; ++b) a[b] -= out.offset;
    const float most = absmax(a, count);
    out.nested_absmax[static_cast<size_t>(g)] = most;
    // Equal values make 0 * infinity, which is above no threshold: code 0, as in bitsandbytes. Its
    // GPUs look for the nearest entry, as here; its CPUs, since 0.50, after rounding to 16 bits.
    const float inverse = 1 / most;
    for (int64_t b = 0; b < count; ++b) {
      codes[b] = static_cast<uint8_t>(
          std::lower_bound(thresholds.begin(), thresholds.end(), a[b] * inverse) -
          thresholds.begin());
    }
  });
  return out;
}

float four_bit_absmax(const QuantizedWeight& w, int64_t block) {
  const float* group = w.nested.row<float>(block / w.group_blocks);
  const float scaled = w.map.as<float>()[w.scales.as<uint8_t>()[block]] * group[0];
  return scaled + group[1];
}

}  // namespace vlr
