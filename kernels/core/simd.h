/// The vector vocabulary of the CPU kernels, on top of Highway. Compiled once per instruction set:
/// include it after hwy/foreach_target.h.
///
/// Every function here gives the same bits on every target. That is what bit-invariance rests on:
/// the only operations used are those that IEEE 754 rounds correctly (+, *, /, sqrt, fma), and no
/// sum's order depends on the width of a vector.

// Per-target include guard: Highway flips HWY_TARGET_TOGGLE with each pass.
#if defined(VLR_KERNELS_CORE_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLR_KERNELS_CORE_SIMD_H_
#undef VLR_KERNELS_CORE_SIMD_H_
#else
#define VLR_KERNELS_CORE_SIMD_H_
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/core/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using U32 = hn::ScalableTag<uint32_t>;
using I32 = hn::ScalableTag<int32_t>;
using VecF32 = hn::Vec<F32>;
using VecU32 = hn::Vec<U32>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F32()));
static_assert(kLanes == 1 || kLanes == 4 || kLanes == 8 || kLanes == 16);

/// Vector registers of the target: what register tiles are sized by.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

/// a * b + c, rounded once. Targets without the instruction go through std::fma lane by lane: slow,
/// and the same bits.
HWY_INLINE VecF32 fma(VecF32 a, VecF32 b, VecF32 c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  HWY_ALIGN float x[kLanes], y[kLanes], z[kLanes];
  const F32 d;
  hn::Store(a, d, x);
  hn::Store(b, d, y);
  hn::Store(c, d, z);
  for (int i = 0; i < kLanes; ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return hn::Load(d, z);
#endif
}

/// The first `count` of kLanes floats, count < kLanes; the other lanes hold `rest`.
HWY_INLINE VecF32 load_n(const float* p, int64_t count, float rest = 0) {
  HWY_ALIGN float lanes[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = i < count ? p[i] : rest;
  return hn::Load(F32(), lanes);
}
HWY_INLINE void store_n(VecF32 v, float* p, int64_t count) {
  HWY_ALIGN float lanes[kLanes];
  hn::Store(v, F32(), lanes);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

/// y[i] = f(in[i]...) for i < n, a vector at a time; y may be one of the inputs.
template <class F, class... In>
HWY_INLINE void map(int64_t n, float* y, F f, const In*... in) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(f(hn::LoadU(F32(), in + i)...), F32(), y + i);
  if (i < n) store_n(f(load_n(in + i, n - i)...), y + i, n - i);
}

/// Folds a row into one f32 in an order that is the same on every target: kChains chains, chain c
/// over elements c, c + kChains, ..., then halves added to halves. f(sum, x) takes the next
/// element; f(sum, rest) has to leave a sum as it is, for the row's end.
constexpr int kChains = 32;
template <class F>
HWY_INLINE float fold(const float* x, int64_t n, float rest, F f) {
  constexpr int kVecs = kChains / kLanes;
  VecF32 sum[kVecs];
#pragma GCC unroll 32
  for (int v = 0; v < kVecs; ++v) sum[v] = hn::Zero(F32());
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains) {
#pragma GCC unroll 32
    for (int v = 0; v < kVecs; ++v) sum[v] = f(sum[v], hn::LoadU(F32(), x + i + v * kLanes));
  }
  if (i < n) {
    HWY_ALIGN float last[kChains];
    for (int c = 0; c < kChains; ++c) last[c] = i + c < n ? x[i + c] : rest;
#pragma GCC unroll 32
    for (int v = 0; v < kVecs; ++v) sum[v] = f(sum[v], hn::Load(F32(), last + v * kLanes));
  }
  HWY_ALIGN float chains[kChains];
#pragma GCC unroll 32
  for (int v = 0; v < kVecs; ++v) hn::Store(sum[v], F32(), chains + v * kLanes);
  for (int half = kChains / 2; half > 0; half /= 2) {
    for (int c = 0; c < half; ++c) chains[c] += chains[c + half];
  }
  return chains[0];
}

/// The 4 * kLanes bytes at any address.
HWY_INLINE VecU32 load_bytes(const std::byte* p) {
#if HWY_TARGET == HWY_SCALAR
  uint32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return hn::Set(U32(), bits);
#else
  const hn::Repartition<uint8_t, U32> d8;
  return hn::BitCast(U32(), hn::LoadU(d8, reinterpret_cast<const uint8_t*>(p)));
#endif
}

/// Transposes a square of 32-bit lanes: v[r][c] becomes v[c][r].
HWY_INLINE void transpose([[maybe_unused]] VecU32 (&v)[kLanes]) {
#if HWY_TARGET != HWY_SCALAR
  const U32 d;
  const hn::Repartition<uint64_t, U32> d64;
  // Within each 128-bit block: v[4g + c] then holds, in block b, column 4b + c of rows 4g .. 4g
  // + 3.
#pragma GCC unroll 4
  for (int g = 0; g < kLanes; g += 4) {
    const auto ab_lo = hn::BitCast(d64, hn::InterleaveLower(d, v[g], v[g + 1]));
    const auto cd_lo = hn::BitCast(d64, hn::InterleaveLower(d, v[g + 2], v[g + 3]));
    const auto ab_hi = hn::BitCast(d64, hn::InterleaveUpper(d, v[g], v[g + 1]));
    const auto cd_hi = hn::BitCast(d64, hn::InterleaveUpper(d, v[g + 2], v[g + 3]));
    v[g] = hn::BitCast(d, hn::InterleaveLower(d64, ab_lo, cd_lo));
    v[g + 1] = hn::BitCast(d, hn::InterleaveUpper(d64, ab_lo, cd_lo));
    v[g + 2] = hn::BitCast(d, hn::InterleaveLower(d64, ab_hi, cd_hi));
    v[g + 3] = hn::BitCast(d, hn::InterleaveUpper(d64, ab_hi, cd_hi));
  }
  // Then the blocks themselves: block g of v[4b + c] is block b of v[4g + c].
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    if constexpr (kLanes == 8) {
      const VecU32 lo = hn::ConcatLowerLower(d, v[4 + c], v[c]);
      v[4 + c] = hn::ConcatUpperUpper(d, v[4 + c], v[c]);
      v[c] = lo;
    } else if constexpr (kLanes == 16) {
      const VecU32 ac_lo = hn::ConcatLowerLower(d, v[8 + c], v[c]);
      const VecU32 bd_lo = hn::ConcatLowerLower(d, v[12 + c], v[4 + c]);
      const VecU32 ac_hi = hn::ConcatUpperUpper(d, v[8 + c], v[c]);
      const VecU32 bd_hi = hn::ConcatUpperUpper(d, v[12 + c], v[4 + c]);
      v[c] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(bd_lo), ac_lo);
      v[4 + c] = hn::OddEvenBlocks(bd_lo, hn::SwapAdjacentBlocks(ac_lo));
      v[8 + c] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(bd_hi), ac_hi);
      v[12 + c] = hn::OddEvenBlocks(bd_hi, hn::SwapAdjacentBlocks(ac_hi));
    }
  }
#endif
}

/// IEEE binary16 in the low half of each lane -> f32, exactly. The exponent is moved by a product
/// with a power of two, which also normalises subnormals; infinities and NaN get their exponent by
/// hand.
HWY_INLINE VecF32 f16_bits_to_f32(VecU32 half) {
  const U32 du;
  const F32 df;
  const VecU32 magnitude = hn::And(half, hn::Set(du, 0x7fff));
  const VecU32 sign = hn::ShiftLeft<16>(hn::Xor(half, magnitude));
  const VecU32 shifted = hn::ShiftLeft<13>(magnitude);
  const VecU32 finite = hn::BitCast(du, hn::Mul(hn::BitCast(df, shifted), hn::Set(df, 0x1p112f)));
  const VecU32 special = hn::Or(shifted, hn::Set(du, 0x7f800000));
  const auto is_finite = hn::Lt(hn::BitCast(I32(), magnitude), hn::Set(I32(), 0x7c00));
  const VecU32 bits = hn::IfThenElse(hn::RebindMask(du, is_finite), finite, special);
  return hn::BitCast(df, hn::Or(bits, sign));
}

/// Writes the transpose of kLanes rows, widened to f32: out[k * out_stride + r] = rows[r][k] for k
/// in [0, depth). Always stores kLanes floats per k, in ascending k: with out_stride < kLanes the
/// next k overwrites what is too much, and up to kLanes - out_stride floats past the last k are
/// clobbered.
template <DType kType>
HWY_INLINE void transpose_rows(const void* const (&rows)[kLanes], int64_t depth, float* out,
                               int64_t out_stride) {
  constexpr bool kWide = kType == DType::kF32;
  constexpr int64_t kStep = kWide ? kLanes : 2 * kLanes;  // elements of one row in a vector
  constexpr int64_t kBytes = kLanes * 4;
  const U32 d;
  const F32 df;
  VecU32 v[kLanes];
  for (int64_t k = 0; k < depth; k += kStep, out += kStep * out_stride) {
    const int64_t offset = k / kStep * kBytes;
    if (depth - k >= kStep) {
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        v[r] = load_bytes(static_cast<const std::byte*>(rows[r]) + offset);
      }
    } else {
      const auto rest = static_cast<size_t>((depth - k) * (kWide ? 4 : 2));
      std::byte tail[kBytes] = {};
      for (int r = 0; r < kLanes; ++r) {
        std::memcpy(tail, static_cast<const std::byte*>(rows[r]) + offset, rest);
        v[r] = load_bytes(tail);
      }
    }
    transpose(v);
    const int64_t steps = depth - k < kStep ? depth - k : kStep;
    const auto put = [&](int64_t i, VecF32 f) HWY_ATTR {
      if (i < steps) hn::StoreU(f, df, out + i * out_stride);
    };
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kType == DType::kF32) {
        put(i, hn::BitCast(df, v[i]));
      } else if constexpr (kType == DType::kBF16) {
        put(2 * i, hn::BitCast(df, hn::ShiftLeft<16>(v[i])));
        put(2 * i + 1, hn::BitCast(df, hn::And(v[i], hn::Set(d, 0xffff0000u))));
      } else {
        static_assert(kType == DType::kF16);
        put(2 * i, f16_bits_to_f32(hn::And(v[i], hn::Set(d, 0xffff))));
        put(2 * i + 1, f16_bits_to_f32(hn::ShiftRight<16>(v[i])));
      }
    }
  }
}

}  // namespace vlr::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
