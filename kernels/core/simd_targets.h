/// Which instruction sets the SIMD kernels are compiled for. Included before any Highway header, in
/// every file that uses Highway's dispatch, so that kernels and tests agree on the list.
///
/// Left out: SSSE3 and SSE4, which like the baseline have no fused multiply-add and would gain
/// nothing over it; and scalable vectors (SVE, RVV), which cannot stand in arrays: such machines
/// use NEON or the baseline.
#ifndef VLR_KERNELS_CORE_SIMD_TARGETS_H_
#define VLR_KERNELS_CORE_SIMD_TARGETS_H_

#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#endif  // VLR_KERNELS_CORE_SIMD_TARGETS_H_
