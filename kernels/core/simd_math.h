/// exp and what the activations need of it, in f32 vectors; the same bits on every target.
/// The polynomials are least-maximum fits of the relative error, made for this file in 40 digits;
/// the errors stated are measured over all of the range by tests/kernels/simd_math_test.cc.
/// Compiled once per instruction set, like simd.h.

#if defined(VLR_KERNELS_CORE_SIMD_MATH_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLR_KERNELS_CORE_SIMD_MATH_H_
#undef VLR_KERNELS_CORE_SIMD_MATH_H_
#else
#define VLR_KERNELS_CORE_SIMD_MATH_H_
#endif

#include "kernels/core/simd.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::HWY_NAMESPACE {

HWY_INLINE VecF32 constant(float value) { return hn::Set(F32(), value); }

/// e^x within 1 ulp, subnormal results and infinity included; NaN stays NaN.
/// x = n ln 2 + r with |r| <= ln(2) / 2, and e^r by a polynomial of degree 6.
HWY_INLINE VecF32 exp(VecF32 x) {
  const I32 di;
  // Past these ends the result is 0 or infinity anyway, and n stays within what the two factors can
  // hold.
  const VecF32 clamped = hn::Min(hn::Max(x, constant(-104.0f)), constant(89.0f));
  const VecF32 shifter =
      constant(0x1.8p23f);  // adding it rounds to an integer, left in the low bits
  const VecF32 shifted = fma(clamped, constant(0x1.715476p+0f), shifter);
  const VecF32 n = hn::Sub(shifted, shifter);
  VecF32 r = fma(n, constant(-0x1.62e430p-1f), clamped);  // ln 2 in two pieces
  r = fma(n, constant(0x1.05c610p-29f), r);
  VecF32 q = constant(0x1.6a2430p-10f);
  q = fma(q, r, constant(0x1.1239e4p-7f));
  q = fma(q, r, constant(0x1.5558f2p-5f));
  q = fma(q, r, constant(0x1.555492p-3f));
  q = fma(q, r, constant(0x1.fffffcp-2f));
  const VecF32 p = hn::Add(fma(hn::Mul(r, r), q, r), constant(1.0f));
  // 2^n as two factors, each a normal number: only the last product rounds, so subnormals come out
  // right.
  const auto whole = hn::Sub(hn::BitCast(di, shifted), hn::Set(di, 0x4b400000));
  const auto half = hn::ShiftRight<1>(whole);
  const auto power = [&](hn::Vec<I32> e) HWY_ATTR {
    return hn::BitCast(F32(), hn::ShiftLeft<23>(hn::Add(e, hn::Set(di, 127))));
  };
  const VecF32 y = hn::Mul(hn::Mul(p, power(half)), power(hn::Sub(whole, half)));
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}

/// z / (1 + e^-z), which is silu(z); within 3 ulp where the result is a normal number.
HWY_INLINE VecF32 silu(VecF32 z) { return hn::Div(z, hn::Add(constant(1.0f), exp(hn::Neg(z)))); }

/// 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + e^(-2u)): the sum that
/// would cancel at the left is gone. Within 2 ulp, or 1e-7 far left, where the rounding of u shows.
HWY_INLINE VecF32 gelu_tanh(VecF32 x) {
  const VecF32 cubic =
      fma(hn::Mul(x, x), constant(-2 * 0.7978845608f * 0.044715f), constant(-2 * 0.7978845608f));
  const VecF32 y = hn::Div(x, hn::Add(constant(1.0f), exp(hn::Mul(x, cubic))));
  // x = -infinity: -infinity / infinity has no value, the limit is -0.
  return hn::IfThenElse(hn::Lt(x, constant(-1e10f)), constant(-0.0f), y);
}

/// 0.5 x (1 + erf(x / sqrt(2))) = x P(N(0, 1) < x), within 5 ulp where the result is a normal
/// number. The tail P(N > |x|) is e^(-x^2 / 2) w / (|x| + k), w a polynomial of degree 9 in (|x| -
/// k) / (|x| + k), k = 2.5, over |x| <= 14.6; further out e^(-x^2 / 2) is 0.
HWY_INLINE VecF32 gelu_erf(VecF32 x) {
  const VecF32 k = constant(2.5f);
  const VecF32 a = hn::Min(hn::Abs(x), constant(14.6f));
  const VecF32 sum = hn::Add(a, k);
  const VecF32 t = hn::Div(hn::Sub(a, k), sum);
  VecF32 w = constant(-0x1.4a02eep-13f);
  w = fma(w, t, constant(-0x1.4623aep-12f));
  w = fma(w, t, constant(0x1.66cd00p-11f));
  w = fma(w, t, constant(0x1.4ac070p-9f));
  w = fma(w, t, constant(-0x1.a3acbap-10f));
  w = fma(w, t, constant(-0x1.0c781ap-6f));
  w = fma(w, t, constant(0x1.2ea466p-7f));
  w = fma(w, t, constant(0x1.0e4f30p-3f));
  w = fma(w, t, constant(-0x1.bc19c2p-2f));
  w = fma(w, t, constant(0x1.69cee6p-1f));
  // e^-(h + rest) with h = a^2 / 2 rounded and rest what the rounding lost.
  const VecF32 half_a = hn::Mul(a, constant(0.5f));
  const VecF32 h = hn::Mul(a, half_a);
  const VecF32 rest = fma(a, half_a, hn::Neg(h));
  VecF32 e = exp(hn::Neg(h));
  e = fma(e, hn::Neg(rest), e);
  const VecF32 tail = hn::Mul(e, hn::Div(w, sum));
  const VecF32 cdf =
      hn::IfThenElse(hn::Lt(x, hn::Zero(F32())), tail, hn::Sub(constant(1.0f), tail));
  const VecF32 y = hn::Mul(hn::Max(x, constant(-14.6f)), cdf);
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}

}  // namespace vlr::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
