#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "multimodal/weighted_rows.cc"
#include <hwy/foreach_target.h>  // compiles this file once for every instruction set

#include <hwy/highway.h>

#include <algorithm>

#include "multimodal/weighted_rows.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::media::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Bytes [begin, n) one by one: what is left when there are fewer than a vector has.
void weighted_bytes(const uint8_t* rows, int64_t stride, int64_t num_rows,
                    std::span<const WeightPair> weights, int64_t begin, int64_t n, uint8_t* out) {
  for (int64_t i = begin; i < n; ++i) {
    int64_t sum = 1 << (kWeightBits - 1);
    for (int64_t r = 0; r < num_rows; ++r) {
      const WeightPair& w = weights[static_cast<size_t>(r / 2)];
      const int shift = r % 2 == 0 ? 0 : 16;
      sum += (static_cast<int16_t>(w.high >> shift) * 4096 + static_cast<int16_t>(w.low >> shift)) *
             int64_t{rows[r * stride + i]};
    }
    out[i] = static_cast<uint8_t>(std::clamp<int64_t>(sum >> kWeightBits, 0, 255));
  }
}

#if HWY_TARGET == HWY_SCALAR  // vectors of one lane, which can hold no two bytes

void weighted_rows(const uint8_t* rows, int64_t stride, int64_t num_rows,
                   std::span<const WeightPair> weights, int64_t n, uint8_t* out) {
  weighted_bytes(rows, stride, num_rows, weights, 0, n, out);
}

#else

// The four bytes of a 32-bit lane have their sums in four vectors of 32-bit lanes, so that nothing
// moves across lanes. Low and high halves of the weights are summed apart.
HWY_ATTR void weighted_rows(const uint8_t* rows, int64_t stride, int64_t num_rows,
                            std::span<const WeightPair> weights, int64_t n, uint8_t* out) {
  const hn::CappedTag<uint8_t, 32> d8;
  const hn::Repartition<int16_t, decltype(d8)> d16;
  const hn::Repartition<uint16_t, decltype(d8)> du16;
  const hn::Repartition<int32_t, decltype(d8)> d32;
  const hn::Repartition<uint32_t, decltype(d8)> du32;
  using V32 = hn::Vec<decltype(d32)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d8));

  const auto block = [&](const uint8_t* in, uint8_t* to) HWY_ATTR {
    V32 low0 = hn::Zero(d32), low1 = low0, low2 = low0, low3 = low0;
    V32 high0 = low0, high1 = low0, high2 = low0, high3 = low0;
    V32 odd = low0;  // the second sum on targets that keep two; rearranged into one after each step
    const auto add = [&](auto pixels, auto weight, V32& sum) HWY_ATTR {
      odd = hn::Zero(d32);
      const V32 even = hn::ReorderWidenMulAccumulate(d32, pixels, weight, hn::Zero(d32), odd);
      sum = hn::Add(sum, hn::RearrangeToOddPlusEven(even, odd));
    };
    const auto byte_mask = hn::Set(du16, 0x00ff);
    for (int64_t r = 0; r < num_rows; r += 2) {
      const auto a = hn::BitCast(du16, hn::LoadU(d8, in + r * stride));
      // An odd last row meets itself, with weight 0.
      const auto b = hn::BitCast(du16, hn::LoadU(d8, in + std::min(r + 1, num_rows - 1) * stride));
      const auto a02 = hn::And(a, byte_mask), a13 = hn::ShiftRight<8>(a);  // bytes 0 and 2, 1 and 3
      const auto b02 = hn::And(b, byte_mask), b13 = hn::ShiftRight<8>(b);
      const auto up = [&](auto v) HWY_ATTR {
        return hn::BitCast(du16, hn::ShiftLeft<16>(hn::BitCast(du32, v)));
      };
      const auto down = [&](auto v) HWY_ATTR {
        return hn::BitCast(du16, hn::ShiftRight<16>(hn::BitCast(du32, v)));
      };
      const auto p0 =
          hn::BitCast(d16, hn::OddEven(up(b02), a02));  // a's byte in the even half, b's in the odd
      const auto p1 = hn::BitCast(d16, hn::OddEven(up(b13), a13));
      const auto p2 = hn::BitCast(d16, hn::OddEven(b02, down(a02)));
      const auto p3 = hn::BitCast(d16, hn::OddEven(b13, down(a13)));
      const WeightPair& w = weights[static_cast<size_t>(r / 2)];
      const auto low = hn::BitCast(d16, hn::Set(d32, w.low));
      const auto high = hn::BitCast(d16, hn::Set(d32, w.high));
      add(p0, low, low0), add(p1, low, low1), add(p2, low, low2), add(p3, low, low3);
      add(p0, high, high0), add(p1, high, high1), add(p2, high, high2), add(p3, high, high3);
    }
    const auto finish = [&](V32 low, V32 high) HWY_ATTR {
      const auto sum =
          hn::Add(hn::Add(hn::ShiftLeft<12>(high), low), hn::Set(d32, 1 << (kWeightBits - 1)));
      const auto v = hn::ShiftRight<kWeightBits>(sum);
      return hn::BitCast(du32, hn::Min(hn::Max(v, hn::Zero(d32)), hn::Set(d32, 255)));
    };
    const auto v01 = hn::Or(finish(low0, high0), hn::ShiftLeft<8>(finish(low1, high1)));
    const auto v23 = hn::Or(finish(low2, high2), hn::ShiftLeft<8>(finish(low3, high3)));
    hn::StoreU(hn::BitCast(d8, hn::Or(v01, hn::ShiftLeft<16>(v23))), d8, to);
  };

  if (n < lanes) return weighted_bytes(rows, stride, num_rows, weights, 0, n, out);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) block(rows + i, out + i);
  if (i < n) block(rows + n - lanes, out + n - lanes);  // overlaps the block before it
}

// A 16x16 block of bytes, transposed: four rounds of interleaving row i with row i + 8.
template <class Load, class Store>
HWY_ATTR void transpose_block(Load load, Store store) {
  const hn::FixedTag<uint8_t, 16> d;
  hn::Vec<decltype(d)> v[16], w[16];
  for (int i = 0; i < 16; ++i) v[i] = load(d, i);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      w[2 * i] = hn::InterleaveLower(d, v[i], v[i + 8]);
      w[2 * i + 1] = hn::InterleaveUpper(d, v[i], v[i + 8]);
    }
    for (int i = 0; i < 16; ++i) v[i] = w[i];
  }
  for (int i = 0; i < 16; ++i) store(d, i, v[i]);
}

#endif  // not scalar

HWY_ATTR void rows_to_columns(const uint8_t* const rows[16], int64_t n, uint8_t* out,
                              int64_t out_stride) {
  int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; x + 16 <= n; x += 16) {
    transpose_block([&](auto d, int i) HWY_ATTR { return hn::LoadU(d, rows[i] + x); },
                    [&](auto d, int i, auto v)
                        HWY_ATTR { hn::StoreU(v, d, out + (x + i) * out_stride); });
  }
#endif
  for (; x < n; ++x) {
    for (int i = 0; i < 16; ++i) out[x * out_stride + i] = rows[i][x];
  }
}

HWY_ATTR void columns_to_rows(const uint8_t* in, int64_t in_stride, int64_t n,
                              uint8_t* const rows[16]) {
  int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; x + 16 <= n; x += 16) {
    transpose_block([&](auto d, int i) HWY_ATTR { return hn::LoadU(d, in + (x + i) * in_stride); },
                    [&](auto d, int i, auto v) HWY_ATTR { hn::StoreU(v, d, rows[i] + x); });
  }
#endif
  for (; x < n; ++x) {
    for (int i = 0; i < 16; ++i) rows[i][x] = in[x * in_stride + i];
  }
}

}  // namespace vlr::media::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vlr::media {

HWY_EXPORT(weighted_rows);
HWY_EXPORT(rows_to_columns);
HWY_EXPORT(columns_to_rows);

WeightPair pack_weights(int32_t even, int32_t odd) {
  // Low parts in [-2048, 2048): sums of them stay small however many rows there are.
  const auto low = [](int32_t q) { return ((q + 2048) & 4095) - 2048; };
  const auto high = [&](int32_t q) { return (q - low(q)) / 4096; };
  const auto pair = [](int32_t e, int32_t o) {
    return static_cast<int32_t>((static_cast<uint32_t>(o) << 16) |
                                (static_cast<uint32_t>(e) & 0xffffu));
  };
  return {pair(low(even), low(odd)), pair(high(even), high(odd))};
}

void weighted_rows(const uint8_t* rows, int64_t stride, int64_t num_rows,
                   std::span<const WeightPair> weights, int64_t n, uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(weighted_rows)(rows, stride, num_rows, weights, n, out);
}
void rows_to_columns(const uint8_t* const rows[16], int64_t n, uint8_t* out, int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(rows_to_columns)(rows, n, out, out_stride);
}
void columns_to_rows(const uint8_t* in, int64_t in_stride, int64_t n, uint8_t* const rows[16]) {
  HWY_DYNAMIC_DISPATCH(columns_to_rows)(in, in_stride, n, rows);
}

}  // namespace vlr::media
#endif
