/// The register tile under linear and attention: a small matrix of sums that lives in vector
/// registers.
///   sum[r, n] += a[r, k] * b[k, n]     for k ascending, one fused multiply-add each
/// Each sum is one chain over k and knows nothing of its neighbours, so neither the shape of the
/// tile nor where a long chain is cut (store_to, load_from: f32 is exact) can change a bit of it.
/// Compiled once per instruction set, like simd.h.

#if defined(VLR_KERNELS_CORE_SIMD_TILE_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VLR_KERNELS_CORE_SIMD_TILE_H_
#undef VLR_KERNELS_CORE_SIMD_TILE_H_
#else
#define VLR_KERNELS_CORE_SIMD_TILE_H_
#endif

#include "kernels/core/simd.h"

HWY_BEFORE_NAMESPACE();
namespace vlr::HWY_NAMESPACE {

/// kRows x (kVecs * kLanes) sums. At most kRegisters - kVecs - 1 vectors, or they spill.
template <int kRows, int kVecs>
struct Tile {
  VecF32 sum[kRows][kVecs];

  HWY_INLINE void set_zero() {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::Zero(F32());
    }
  }

  HWY_INLINE void load_from(const float* c, int64_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::LoadU(F32(), c + r * stride + v * kLanes);
    }
  }

  HWY_INLINE void store_to(float* c, int64_t stride) const {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) hn::StoreU(sum[r][v], F32(), c + r * stride + v * kLanes);
    }
  }

  /// a[r, k] at a + r * row_stride + k * step_stride (row_stride 1 is the fast case: one base
  /// register); b[k, .] at b + k * b_stride, aligned to vectors. With kSkip, a b[k, n] of exactly
  /// -1 leaves sum[., n] alone, whatever a is.
  template <bool kSkip = false>
  HWY_INLINE void multiply_add(const float* a, int64_t row_stride, int64_t step_stride,
                               const float* b, int64_t b_stride, int64_t steps) {
    // Locals: sums that are members stay in memory with some compilers, which costs more than half
    // the speed.
    VecF32 acc[kRows][kVecs];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) acc[r][v] = sum[r][v];
    }
    for (int64_t k = 0; k < steps; ++k, a += step_stride, b += b_stride) {
      VecF32 bv[kVecs];
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) bv[v] = hn::Load(F32(), b + v * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const VecF32 av = hn::Set(F32(), a[r * row_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) {
          const VecF32 next = fma(av, bv[v], acc[r][v]);
          if constexpr (kSkip) {
            acc[r][v] = hn::IfThenElse(hn::Ne(bv[v], hn::Set(F32(), -1.0f)), next, acc[r][v]);
          } else {
            acc[r][v] = next;
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sum[r][v] = acc[r][v];
    }
  }
};

}  // namespace vlr::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
