/// What the bytes of nf4, fp4, int8, fp8 and mxfp4 mean, and how encoders choose them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/core/load.h"
#include "kernels/quant/eight_bit.h"
#include "kernels/quant/four_bit.h"
#include "kernels/quant/mxfp4.h"

namespace vlr {
namespace {

ConstTensor tensor(const std::vector<float>& v) {
  return ConstTensor(v.data(), DType::kF32, {static_cast<int64_t>(v.size())});
}

std::vector<float> random_normal(int64_t n, float deviation = 1) {
  std::mt19937_64 rng(7);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> v(static_cast<size_t>(n));
  std::generate(v.begin(), v.end(), [&] { return normal(rng); });
  return v;
}

/// Leaves in v what both 16-bit dtypes hold: 8 bits of fraction, and nothing that f16 has no
/// exponent for.
void round_to_16_bits(std::vector<float>& v, std::vector<uint16_t>& bf16,
                      std::vector<uint16_t>& f16) {
  for (float& x : v) {
    x = std::fabs(x) < 0x1p-12f ? 0 : bf16_to_f32(f32_to_bf16(x));
    bf16.push_back(f32_to_bf16(x));
    f16.push_back(f32_to_f16(x));
  }
}

TEST(WeightFormat, HasNames) {
  EXPECT_EQ(weight_format_name(WeightFormat::kDense), "dense");
  EXPECT_EQ(weight_format_name(WeightFormat::kNf4), "nf4");
  EXPECT_EQ(weight_format_name(WeightFormat::kFp4), "fp4");
  EXPECT_EQ(weight_format_name(WeightFormat::kInt8), "int8");
  EXPECT_EQ(weight_format_name(WeightFormat::kFp8), "fp8");
  EXPECT_EQ(weight_format_name(WeightFormat::kMxfp4), "mxfp4");
}

TEST(QuantizedWeight, CheckSaysWhatIsWrong) {
  float data[256] = {};
  const auto message = [](const QuantizedWeight& w) { return w.check("op").message(); };
  const QuantizedWeight int8{.format = WeightFormat::kInt8,
                             .rows = 3,
                             .cols = 5,
                             .codes = ConstTensor(data, DType::kI8, {3, 5}),
                             .scales = ConstTensor(data, DType::kF32, {3})};
  EXPECT_EQ(message(int8), "");
  EXPECT_EQ(int8.bytes(), 15 + 12);
  EXPECT_EQ(message({}), "op: w must be nf4 | fp4 | int8 | fp8 | mxfp4, got dense");
  QuantizedWeight w = int8;
  w.format = WeightFormat::kFp8;
  EXPECT_EQ(message(w), "op: w codes must be f8_e4m3, got i8[3, 5]");
  w = int8;
  w.rows = 4;
  EXPECT_EQ(message(w), "op: w codes must be [4, 5], got i8[3, 5]");
  w = int8;
  w.scales = ConstTensor(data, DType::kBF16, {3});
  EXPECT_EQ(message(w), "op: w scales must be f32, got bf16[3]");
  w = int8;
  w.codes.strides[0] = 6;
  EXPECT_EQ(message(w), "op: w codes must be contiguous");
  w = int8;
  w.rows = 0;
  EXPECT_EQ(message(w), "op: N and K must be at least 1, got w 0 x 5");

  // 150 values, so 3 blocks, so 2 groups of 2.
  const QuantizedWeight nf4{.format = WeightFormat::kNf4,
                            .rows = 6,
                            .cols = 25,
                            .codes = ConstTensor(data, DType::kU8, {75}),
                            .scales = ConstTensor(data, DType::kU8, {3}),
                            .nested = ConstTensor(data, DType::kF32, {2, 2}),
                            .map = ConstTensor(data, DType::kF32, {256}),
                            .group_blocks = 2};
  EXPECT_EQ(message(nf4), "");
  EXPECT_EQ(nf4.bytes(), 75 + 3 + 16 + 1024);
  w = nf4;
  w.codes = ConstTensor(data, DType::kU8, {6, 25});
  EXPECT_EQ(message(w), "op: w codes must be [75], got u8[6, 25]");
  w = nf4;
  w.scales = ConstTensor(data, DType::kU8, {2});
  EXPECT_EQ(message(w), "op: w scales must be [3], got u8[2]");
  w = nf4;
  w.group_blocks = 4;
  EXPECT_EQ(message(w), "op: w nested must be [1, 2], got f32[2, 2]");
  w.group_blocks = 3;
  EXPECT_EQ(message(w), "op: blocks in a group of w must be a power of two, got 3");
  w = nf4;
  w.map = {};
  EXPECT_EQ(message(w), "op: w map must be [256], got f32[]");
  w = nf4;
  w.rows = 5;
  EXPECT_EQ(message(w), "op: N * K must be even for nf4, got w 5 x 25");

  const QuantizedWeight mxfp4{.format = WeightFormat::kMxfp4,
                              .rows = 3,
                              .cols = 34,
                              .codes = ConstTensor(data, DType::kU8, {3, 17}),
                              .scales = ConstTensor(data, DType::kU8, {3, 2})};
  EXPECT_EQ(message(mxfp4), "");
  EXPECT_EQ(mxfp4.bytes(), 51 + 6);
  w = mxfp4;
  w.cols = 33;
  EXPECT_EQ(message(w), "op: K must be even for mxfp4, got 33");
  w = mxfp4;
  w.scales = ConstTensor(data, DType::kU8, {3, 1});
  EXPECT_EQ(message(w), "op: w scales must be [3, 2], got u8[3, 1]");
}

TEST(DynamicMap, IsThatOfBitsandbytes) {
  const std::span<const float, 256> map = dynamic_map();
  EXPECT_TRUE(std::ranges::is_sorted(map, std::ranges::less_equal()));  // strictly
  EXPECT_EQ(map[127], 0);
  EXPECT_EQ(map[255], 1);
  for (size_t i = 0; i < 127; ++i) EXPECT_EQ(map[i], -map[254 - i]);
  // Entries that torch.linspace leaves a rounding away from the exact ones are among these.
  const std::pair<size_t, float> entries[] = {
      {128, 5.500000384017767e-07f},  {129, 3.250000190746505e-06f}, {131, 2.1249998098937795e-05f},
      {135, 0.00015625001105945557f}, {142, 0.0009437500848434865f}, {143, 0.001281249918974936f},
      {158, 0.009718749672174454f},   {159, 0.011406250298023224f},  {177, 0.06203125044703484f},
      {190, 0.09859374910593033f},    {191, 0.10703125596046448f},   {213, 0.4164062440395355f},
      {218, 0.48671871423721313f},    {234, 0.7117187976837158f},    {254, 0.992968738079071f}};
  for (const auto& [i, value] : entries) EXPECT_EQ(map[i], value) << i;
}

/// A tensor as a weight of one row. `nested`: room for scales and offsets.
QuantizedWeight as_weight(const FourBitTensor& t, int64_t numel, std::vector<float>& nested) {
  for (float scale : t.nested_absmax) nested.insert(nested.end(), {scale, t.offset});
  const auto size = [](const auto& v) { return static_cast<int64_t>(v.size()); };
  return {.format = WeightFormat::kNf4,
          .rows = 1,
          .cols = numel,
          .codes = ConstTensor(t.codes.data(), DType::kU8, {size(t.codes)}),
          .scales = ConstTensor(t.absmax.data(), DType::kU8, {size(t.absmax)}),
          .nested = ConstTensor(nested.data(), DType::kF32, {size(t.nested_absmax), 2}),
          .map = ConstTensor(dynamic_map().data(), DType::kF32, {256}),
          .group_blocks = kFourBitNestedBlock};
}

int code_at(const FourBitTensor& t, size_t i) {
  return i % 2 == 0 ? t.codes[i / 2] >> 4 : t.codes[i / 2] & 15;
}

std::vector<float> decode(const FourBitTensor& t, int64_t numel,
                          WeightFormat format = WeightFormat::kNf4) {
  std::vector<float> nested, out;
  const QuantizedWeight w = as_weight(t, numel, nested);
  for (int64_t i = 0; i < numel; ++i) {
    const auto code = static_cast<size_t>(code_at(t, static_cast<size_t>(i)));
    out.push_back(codebook(format)[code] * four_bit_absmax(w, i / kFourBitBlock));
  }
  return out;
}

/// What the paper says they are: quantiles of N(0, 1), the upper half in 8 steps, the lower in 7.
TEST(Nf4Codebook, HasNormalQuantiles) {
  const auto normal_cdf = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  const auto quantile = [&](double p) {
    double low = -10, high = 10;
    for (int i = 0; i < 200; ++i)
      (normal_cdf((low + high) / 2) < p ? low : high) = (low + high) / 2;
    return low;
  };
  const double edge = 0.9677083, largest = quantile(edge);
  for (int i = 0; i <= 8; ++i) {
    EXPECT_NEAR(kNf4Codebook[static_cast<size_t>(7 + i)],
                quantile(0.5 + (edge - 0.5) * i / 8) / largest, 1e-6);
  }
  for (int i = 0; i <= 7; ++i) {
    EXPECT_NEAR(kNf4Codebook[static_cast<size_t>(7 - i)],
                -quantile(0.5 + (edge - 0.5) * i / 7) / largest, 1e-6);
  }
}

TEST(Nf4, CodeIsTheNearestValue) {
  ThreadPool pool(1);
  std::vector<float> v(64);
  v[0] = -1;  // absmax 1: values are their own quotients
  for (size_t i = 1; i < 64; ++i) v[i] = static_cast<float>(i) / 32 - 1;
  for (size_t i = 0; i < 15; ++i) {  // and thresholds: a tie goes down, the next float up
    v[2 * i + 1] = (kNf4Codebook[i] + kNf4Codebook[i + 1]) / 2;
    v[2 * i + 2] = std::nextafter(v[2 * i + 1], 2.0f);
  }
  const FourBitTensor t = encode_four_bit(WeightFormat::kNf4, tensor(v), pool);
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(code_at(t, 2 * i + 1), static_cast<int>(i));
    EXPECT_EQ(code_at(t, 2 * i + 2), static_cast<int>(i + 1));
  }
  for (size_t i = 31; i < 64; ++i) {
    const auto distance = [&](float c) { return std::fabs(c - v[i]); };
    const auto nearest = std::ranges::min_element(kNf4Codebook, {}, distance);
    EXPECT_EQ(code_at(t, i), nearest - kNf4Codebook.begin()) << v[i];
  }
}

TEST(Nf4, HighNibbleComesFirst) {
  ThreadPool pool(1);
  std::vector<float> v(64, 0.0f);
  v[0] = 3;
  v[1] = -3;
  v[63] = 3;
  const FourBitTensor t = encode_four_bit(WeightFormat::kNf4, tensor(v), pool);
  ASSERT_EQ(t.codes.size(), 32u);
  EXPECT_EQ(t.codes[0], 0xf0);
  EXPECT_EQ(t.codes[1], 0x77);
  EXPECT_EQ(t.codes[31], 0x7f);
  EXPECT_EQ(t.offset, 3);
  EXPECT_EQ(t.nested_absmax, std::vector<float>{0});
  EXPECT_EQ(decode(t, 64), v);  // one block: its absmax is the offset
}

TEST(Nf4, BlocksOfZerosStayZero) {
  ThreadPool pool(2);
  std::vector<float> v = random_normal(64 * 600);
  for (int64_t b : {0, 1, 255, 256, 599}) std::fill_n(v.begin() + b * 64, 64, 0.0f);
  const std::vector<float> back =
      decode(encode_four_bit(WeightFormat::kNf4, tensor(v), pool), 64 * 600);
  for (int64_t b : {0, 1, 255, 256, 599}) {
    for (int64_t i = b * 64; i < (b + 1) * 64; ++i) ASSERT_EQ(back[static_cast<size_t>(i)], 0);
  }
  const FourBitTensor all =
      encode_four_bit(WeightFormat::kNf4, tensor(std::vector<float>(200)), pool);
  EXPECT_EQ(all.offset, 0);
  for (float x : decode(all, 200)) EXPECT_EQ(x, 0);
}

TEST(Nf4, LastBlockMayBeShort) {
  ThreadPool pool(2);
  for (int64_t n : {1, 2, 63, 64, 65, 127, 129, 64 * 256 + 1, 64 * 257 - 3}) {
    const std::vector<float> v = random_normal(n);
    const FourBitTensor t = encode_four_bit(WeightFormat::kNf4, tensor(v), pool);
    ASSERT_EQ(t.codes.size(), static_cast<size_t>((n + 1) / 2)) << n;
    ASSERT_EQ(t.absmax.size(), static_cast<size_t>((n + 63) / 64)) << n;
    ASSERT_EQ(t.nested_absmax.size(), static_cast<size_t>(((n + 63) / 64 + 255) / 256)) << n;
    if (n % 2 != 0) {
      EXPECT_EQ(t.codes.back() & 15, 7) << n;
    }
    const std::vector<float> back = decode(t, n);
    for (int64_t b = 0; b < n; b += 64) {
      const auto first = v.begin() + b, last = v.begin() + std::min(b + 64, n);
      const auto size = [](float x) { return std::fabs(x); };
      const float absmax = size(*std::ranges::max_element(first, last, {}, size));
      // Half of the widest gap of the codebook, and what 8 bits leave of the absmax.
      for (auto x = first; x < last; ++x) {
        ASSERT_NEAR(back[static_cast<size_t>(x - v.begin())], *x, (0.1521f + 0.02f) * absmax)
            << n << ": " << x - v.begin();
      }
    }
  }
}

TEST(Nf4, EmptyTensorHasNothing) {
  ThreadPool pool(1);
  const FourBitTensor t =
      encode_four_bit(WeightFormat::kNf4, ConstTensor(nullptr, DType::kF32, {0}), pool);
  EXPECT_TRUE(t.codes.empty() && t.absmax.empty() && t.nested_absmax.empty());
}

/// Literally: differences from the mean, over their largest, to the nearest entry of the map.
TEST(Nf4, AbsmaxIsQuantizedInGroupsOf256) {
  ThreadPool pool(2);
  const int64_t blocks = 300;
  std::vector<float> v = random_normal(64 * blocks), absmax;
  double sum = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    float most = 0;
    for (int64_t i = 0; i < 64; ++i)
      most = std::max(most, std::fabs(v[static_cast<size_t>(b * 64 + i)]));
    absmax.push_back(most);
    sum += static_cast<double>(most);
  }
  const FourBitTensor t = encode_four_bit(WeightFormat::kNf4, tensor(v), pool);
  EXPECT_EQ(t.offset, static_cast<float>(sum / 300));
  for (size_t g = 0; g < 2; ++g) {
    const size_t begin = g * 256, end = std::min<size_t>(begin + 256, absmax.size());
    float most = 0;
    for (size_t b = begin; b < end; ++b) most = std::max(most, std::fabs(absmax[b] - t.offset));
    EXPECT_EQ(t.nested_absmax[g], most);
    for (size_t b = begin; b < end; ++b) {
      const double target = static_cast<double>(absmax[b] - t.offset) / static_cast<double>(most);
      const auto distance = [&](float m) { return std::fabs(static_cast<double>(m) - target); };
      const float nearest = std::ranges::min(dynamic_map(), {}, distance);
      EXPECT_NEAR(distance(dynamic_map()[t.absmax[b]]), distance(nearest), 1e-6);
    }
  }
}

/// Of N(0, 1) in blocks of 64: the mean distance, which the formats' authors test by, and relative
/// L2.
std::pair<double, double> losses(WeightFormat format) {
  ThreadPool pool(2);
  const int64_t n = 1 << 21;
  const std::vector<float> v = random_normal(n),
                           back = decode(encode_four_bit(format, tensor(v), pool), n, format);
  double off = 0, squares = 0, all = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    const double d = static_cast<double>(back[i]) - static_cast<double>(v[i]);
    off += std::fabs(d);
    squares += d * d;
    all += static_cast<double>(v[i]) * static_cast<double>(v[i]);
  }
  return {off / static_cast<double>(n), std::sqrt(squares / all)};
}

TEST(Nf4, LosesAsMuchAsTheFormatDoes) {
  const auto [distance, l2] = losses(WeightFormat::kNf4);
  EXPECT_NEAR(distance, 0.0728, 2e-4);
  EXPECT_NEAR(l2, 0.0920, 3e-4);
}

TEST(Fp4, LosesAsMuchAsTheFormatDoes) {
  const auto [distance, l2] = losses(WeightFormat::kFp4);
  EXPECT_NEAR(distance, 0.0965, 2e-4);
  EXPECT_NEAR(l2, 0.1220, 3e-4);
}

/// Three bits of size, the fourth the sign; sizes are halves, quarters and one apart, over 12.
TEST(Fp4, CodeIsTheNearestValueAndTiesGoToTheSmaller) {
  ThreadPool pool(1);
  constexpr float kSizes[] = {0, 0.0625f, 2, 3, 4, 6, 8, 12};
  constexpr int kCodes[] = {0, 1, 6, 7, 4, 5, 2, 3};
  std::vector<float> v(64, 0.0f);
  v[63] = 12;  // absmax
  for (size_t i = 0; i < 8; ++i) {
    v[i] = kSizes[i];
    v[8 + i] = -kSizes[i];
    if (i == 7) continue;
    const float tie = (kSizes[i] / 12 + kSizes[i + 1] / 12) / 2 * 12;
    v[16 + i] = tie * (1 - 1e-6f);
    v[24 + i] = tie * (1 + 1e-6f);
    v[32 + i] = -tie * (1 - 1e-6f);
    v[40 + i] = -tie * (1 + 1e-6f);
  }
  const FourBitTensor t = encode_four_bit(WeightFormat::kFp4, tensor(v), pool);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(code_at(t, i), kCodes[i]);
    EXPECT_EQ(code_at(t, 8 + i), i == 0 ? 0 : kCodes[i] + 8);
    if (i == 7) continue;
    EXPECT_EQ(code_at(t, 16 + i), kCodes[i]) << i;
    EXPECT_EQ(code_at(t, 24 + i), kCodes[i + 1]) << i;
    EXPECT_EQ(code_at(t, 32 + i), kCodes[i] + 8) << i;
    EXPECT_EQ(code_at(t, 40 + i), kCodes[i + 1] + 8) << i;
  }
  const std::vector<float> back = decode(t, 64, WeightFormat::kFp4);
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(back[i], v[i], 1e-6) << i;
}

/// A tie exactly, between sizes whose half is exact.
TEST(Fp4, AnExactTieIsTheSmaller) {
  ThreadPool pool(1);
  std::vector<float> v(64, 0.0f);
  v[0] = 1;
  const float tie = (kFp4Codebook[5] + kFp4Codebook[2]) / 2;  // of 1/2 and 2/3
  v[1] = tie;
  v[2] = -tie;
  v[3] = std::nextafter(tie, 1.0f);
  v[4] = -std::nextafter(tie, 1.0f);
  const FourBitTensor t = encode_four_bit(WeightFormat::kFp4, tensor(v), pool);
  EXPECT_EQ(code_at(t, 1), 5);
  EXPECT_EQ(code_at(t, 2), 13);
  EXPECT_EQ(code_at(t, 3), 2);
  EXPECT_EQ(code_at(t, 4), 10);
}

TEST(Nf4, DoesNotDependOnThreadsOrOnHowValuesAreStored) {
  ThreadPool one(1), three(3);
  std::vector<float> v = random_normal(64 * 1000 + 18);
  std::vector<uint16_t> bf16, f16;
  round_to_16_bits(v, bf16, f16);
  const FourBitTensor want = encode_four_bit(WeightFormat::kNf4, tensor(v), one);
  const auto size = static_cast<int64_t>(v.size());
  const auto same = [&](const FourBitTensor& t) {
    return t.codes == want.codes && t.absmax == want.absmax &&
           t.nested_absmax == want.nested_absmax && t.offset == want.offset;
  };
  EXPECT_TRUE(same(encode_four_bit(WeightFormat::kNf4, tensor(v), three)));
  EXPECT_TRUE(same(
      encode_four_bit(WeightFormat::kNf4, ConstTensor(bf16.data(), DType::kBF16, {size}), three)));
  EXPECT_TRUE(same(
      encode_four_bit(WeightFormat::kNf4, ConstTensor(f16.data(), DType::kF16, {size}), three)));
}

TEST(Nf4, AbsmaxIsRoundedTwice) {
  // (1 + 2^-12)^2 loses its 2^-24 before the sum: a fused multiply-add would keep it.
  const float map[256] = {1 + 0x1p-12f, 0.5f}, nested[] = {1 + 0x1p-12f, -1, /**/ 4, 8};
  const uint8_t codes[] = {0, 1, 1};
  const QuantizedWeight w{.format = WeightFormat::kNf4,
                          .rows = 1,
                          .cols = 192,
                          .codes = {},
                          .scales = ConstTensor(codes, DType::kU8, {3}),
                          .nested = ConstTensor(nested, DType::kF32, {2, 2}),
                          .map = ConstTensor(map, DType::kF32, {256}),
                          .group_blocks = 2};
  EXPECT_EQ(four_bit_absmax(w, 0), 0x1p-11f);
  EXPECT_EQ(four_bit_absmax(w, 1), 0.5f * (1 + 0x1p-12f) - 1);
  EXPECT_EQ(four_bit_absmax(w, 2), 10);
}

/// Values of e4m3 by its definition: 4 bits of exponent with bias 7, 3 of fraction.
double e4m3_value(int code) {
  const int exponent = (code >> 3) & 15, fraction = code & 7;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return code & 0x80 ? -size : size;
}

TEST(E4M3, EveryCodeIsItsValue) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_f32(static_cast<uint8_t>(code));
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value)) << code;
      EXPECT_EQ(f32_to_e4m3(value), 0x7f);
      continue;
    }
    EXPECT_EQ(static_cast<double>(value), e4m3_value(code)) << code;
    EXPECT_EQ(std::signbit(value), code >= 128) << code;
    EXPECT_EQ(f32_to_e4m3(value), code);
  }
}

TEST(E4M3, RoundsToNearestEven) {
  for (int code = 0; code < 0x7e; ++code) {
    const auto midpoint = static_cast<float>((e4m3_value(code) + e4m3_value(code + 1)) / 2);
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(f32_to_e4m3(midpoint), even) << code;
    EXPECT_EQ(f32_to_e4m3(std::nextafter(midpoint, 0.0f)), code);
    EXPECT_EQ(f32_to_e4m3(std::nextafter(midpoint, 500.0f)), code + 1);
    EXPECT_EQ(f32_to_e4m3(-midpoint), even | 0x80);
    EXPECT_EQ(f32_to_e4m3(-std::nextafter(midpoint, 0.0f)), code | 0x80);
    EXPECT_EQ(f32_to_e4m3(-std::nextafter(midpoint, 500.0f)), (code + 1) | 0x80);
  }
}

TEST(E4M3, SaturatesAndKeepsNan) {
  for (float v : {448.0f, 449.0f, 464.0f, 465.0f, 480.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(f32_to_e4m3(v), 0x7e) << v;
    EXPECT_EQ(f32_to_e4m3(-v), 0xfe) << v;
  }
  EXPECT_EQ(f32_to_e4m3(NAN), 0x7f);
  EXPECT_EQ(f32_to_e4m3(-NAN), 0x7f);
  EXPECT_EQ(f32_to_e4m3(0), 0);
  EXPECT_EQ(f32_to_e4m3(-0.0f), 0x80);
  EXPECT_EQ(f32_to_e4m3(1e-40f), 0);
}

TEST(Int8, RoundsToNearestEvenAndSaturates) {
  EXPECT_EQ(to_int8(2.5f, 1), 2);
  EXPECT_EQ(to_int8(3.5f, 1), 4);
  EXPECT_EQ(to_int8(-2.5f, 1), -2);
  EXPECT_EQ(to_int8(1, 500), 127);
  EXPECT_EQ(to_int8(-1, 500), -127);
  EXPECT_EQ(to_int8(5, 0), 0);
}

TEST(QuantizeWeightRows, HasTheFormulasCodesAndScales) {
  ThreadPool pool(3);
  const int64_t rows = 20, cols = 333;
  std::vector<float> v = random_normal(rows * cols, 0.02f);
  std::fill_n(v.begin() + 5 * cols, cols, 0.0f);
  std::vector<uint16_t> bf16, f16;
  round_to_16_bits(v, bf16, f16);
  for (DType codes : {DType::kI8, DType::kF8E4M3}) {
    const RowQuantized q =
        quantize_weight_rows(ConstTensor(v.data(), DType::kF32, {rows, cols}), codes, pool);
    ASSERT_EQ(q.codes.size(), v.size());
    ASSERT_EQ(q.scales.size(), static_cast<size_t>(rows));
    for (size_t r = 0; r < 20; ++r) {
      float most = 0;
      for (size_t k = 0; k < 333; ++k) most = std::max(most, std::fabs(v[r * 333 + k]));
      EXPECT_EQ(q.scales[r], most / largest_code(codes));
      for (size_t k = 0; k < 333; ++k) {
        const float x = v[r * 333 + k], inverse = most == 0 ? 0 : largest_code(codes) / most;
        const auto code = static_cast<uint8_t>(q.codes[r * 333 + k]);
        ASSERT_EQ(code, codes == DType::kI8 ? static_cast<uint8_t>(to_int8(x, inverse))
                                            : f32_to_e4m3(x * inverse))
            << r << ", " << k;
      }
    }
    for (const ConstTensor& same : {ConstTensor(bf16.data(), DType::kBF16, {rows, cols}),
                                    ConstTensor(f16.data(), DType::kF16, {rows, cols})}) {
      const RowQuantized other = quantize_weight_rows(same, codes, pool);
      EXPECT_EQ(other.codes, q.codes);
      EXPECT_EQ(other.scales, q.scales);
    }
  }
}

/// A NaN must not vanish: it reaches the scale, and so every value of its row or block.
TEST(Encoders, KeepNanVisible) {
  ThreadPool pool(1);
  std::vector<float> v = random_normal(128);
  v[70] = NAN;
  const ConstTensor rows(v.data(), DType::kF32, {2, 64});
  EXPECT_TRUE(std::isnan(encode_four_bit(WeightFormat::kNf4, rows, pool).offset));
  const RowQuantized q = quantize_weight_rows(rows, DType::kF8E4M3, pool);
  EXPECT_FALSE(std::isnan(q.scales[0]));
  EXPECT_TRUE(std::isnan(q.scales[1]));
}

/// Values of e2m1 by its definition: 2 bits of exponent with bias 1, 1 of fraction.
double e2m1_value(int code) {
  const int exponent = (code >> 1) & 3, fraction = code & 1;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -1) : std::ldexp(2 + fraction, exponent - 2);
  return code & 8 ? -size : size;
}

TEST(E2M1, EveryCodeIsItsValue) {
  for (int code = 0; code < 16; ++code) {
    const float value = kE2m1Values[static_cast<size_t>(code)];
    EXPECT_EQ(static_cast<double>(value), e2m1_value(code)) << code;
    EXPECT_EQ(f32_to_e2m1(value), code);
  }
}

TEST(E2M1, RoundsToNearestTiesToTheEvenCode) {
  for (int code = 0; code + 1 < 8; ++code) {
    const auto low = static_cast<size_t>(code);
    const float middle = (kE2m1Values[low] + kE2m1Values[low + 1]) / 2;
    EXPECT_EQ(f32_to_e2m1(middle), code % 2 == 0 ? code : code + 1) << middle;
    EXPECT_EQ(f32_to_e2m1(std::nextafter(middle, 0.0f)), code) << middle;
    EXPECT_EQ(f32_to_e2m1(std::nextafter(middle, 9.0f)), code + 1) << middle;
    EXPECT_EQ(f32_to_e2m1(-middle), 8 + (code % 2 == 0 ? code : code + 1)) << middle;
  }
  EXPECT_EQ(f32_to_e2m1(100), 7);
  EXPECT_EQ(f32_to_e2m1(-100), 15);
}

TEST(E8M0, IsAPowerOfTwo) {
  for (int bits = 0; bits < 255; ++bits)
    EXPECT_EQ(e8m0_to_f32(static_cast<uint8_t>(bits)), std::ldexp(1.0f, bits - 127)) << bits;
  EXPECT_TRUE(std::isnan(e8m0_to_f32(255)));
}

TEST(Mxfp4, ScalesMakeTheLargestValueFourToEight) {
  ThreadPool threads(2);
  // Two rows of 36: a block of 32 and one of 4.
  std::vector<float> v(72, 0);
  v[0] = 3;       // 3 / 0.5 = 6
  v[1] = -0.25f;  // -0.5
  v[32] = 7.9f;   // 6, the largest there is
  v[35] = 1;
  v[36] = 0x1p-140f;  // smaller than any scale makes 4
  v[68] = 0x1.fp127f;
  const Mxfp4Tensor t = encode_mxfp4(ConstTensor(v.data(), DType::kF32, {2, 36}), threads);
  EXPECT_EQ(t.scales, (std::vector<uint8_t>{126, 127, /**/ 0, 252}));
  ASSERT_EQ(t.codes.size(), 36u);
  EXPECT_EQ(t.codes[0], std::byte{0x97});
  EXPECT_EQ(t.codes[16], std::byte{0x07});
  EXPECT_EQ(t.codes[17], std::byte{0x20});
  EXPECT_EQ(t.codes[18], std::byte{0x00});
  EXPECT_EQ(t.codes[34], std::byte{0x07});
}

TEST(Mxfp4, IsAsFarAsTheFormatHasToBe) {
  ThreadPool one(1), three(3);
  std::vector<float> v = random_normal(300 * 320, 0.02f);
  std::vector<uint16_t> bf16, f16;
  round_to_16_bits(v, bf16, f16);
  const auto encode = [](const void* data, DType dtype, ThreadPool& threads) {
    return encode_mxfp4(ConstTensor(data, dtype, {300, 320}), threads);
  };
  const Mxfp4Tensor t = encode(v.data(), DType::kF32, one);
  for (const Mxfp4Tensor& other :
       {encode(v.data(), DType::kF32, three), encode(bf16.data(), DType::kBF16, three),
        encode(f16.data(), DType::kF16, three)}) {
    EXPECT_TRUE(t.codes == other.codes && t.scales == other.scales);
  }
  double squares = 0, all = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    const int pair = static_cast<int>(t.codes[i / 2]);
    const float got = kE2m1Values[static_cast<size_t>(i % 2 == 0 ? pair & 15 : pair >> 4)] *
                      e8m0_to_f32(t.scales[i / 32]);
    squares += std::pow(static_cast<double>(got) - static_cast<double>(v[i]), 2);
    all += std::pow(static_cast<double>(v[i]), 2);
  }
  EXPECT_NEAR(std::sqrt(squares / all), 0.1137, 5e-4);
}

}  // namespace
}  // namespace vlr
