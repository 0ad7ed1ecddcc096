/// Matrix products of four warps on tensor cores that run while the warps go on: wgmma, 16-bit
/// operands and f32 accumulators (sm_90a alone).
/// Source: PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate operation".
///
/// d += A B with A [64, 16] in registers and B [16, N] in shared memory, where it lies as its
/// transpose, [N, 64 or more] with lines of 128 bytes. Warp w of the four has rows 16 w..16 w + 15,
/// its lanes own of A and of every 8 columns of d what they do in mma.cuh.
///
/// Order: write registers of A and d, pin them, wgmma_fence, products, wgmma_commit; after a
/// wgmma_wait that covers them pin and read d, or write either. B has to come by copies of boxes
/// (tensor_copy.cuh), or needs a proxy fence.
#ifndef VLR_KERNELS_CUDA_WGMMA_CUH_
#define VLR_KERNELS_CUDA_WGMMA_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace vlr::cuda {

/// Keeps what makes a register before this place, and what uses it behind: compilers know wgmma's
/// operands, but not when it reads and writes them.
__device__ inline void pin(uint32_t& word) { asm volatile("" : "+r"(word) : : "memory"); }
__device__ inline void pin(float& value) { asm volatile("" : "+f"(value) : : "memory"); }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most the kPending groups committed last are under way.
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
}

/// Of the registers of each of four warps, all of which come here; kCount is a multiple of 8.
/// Source: PTX ISA, "setmaxnreg".
template <int kCount>
__device__ inline void decrease_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kCount));
}
template <int kCount>
__device__ inline void increase_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kCount));
}

/// Describes B at a shared address in groups of eight lines, 1024 bytes at a multiple of 1024,
/// chunk c of 16 bytes of line r at place c ^ r % 8. Add 2 for the next 16 k.
__device__ inline uint64_t wgmma_lines(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kGroupStride = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kGroupStride | uint64_t{1} << 16 | (address & 0x3ffff) >> 4;
}

/// The same for groups of eight lines of 32 bytes, 256 bytes at a multiple of 256: 16 k, chunk c of
/// line r at place c ^ r / 4 % 2.
__device__ inline uint64_t wgmma_lines_32(uint32_t address) {
  constexpr uint64_t kSwizzle32 = uint64_t{3} << 62, kGroupStride = uint64_t{256 / 16} << 32;
  return kSwizzle32 | kGroupStride | uint64_t{1} << 16 | (address & 0x3ffff) >> 4;
}
/// Describes B as it is multiplied, [k, N]: its lines of 128 bytes are 64 columns of one k, lie as
/// above, and the next 64 columns follow `slab` bytes behind. Add 2048 / 16 for the next 16 k.
__device__ inline uint64_t wgmma_columns(uint32_t address, int slab) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kGroupStride = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kGroupStride | static_cast<uint64_t>(slab / 16) << 16 |
         (address & 0x3ffff) >> 4;
}

#define VLR_SUMS_4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define VLR_SUMS_8(i) VLR_SUMS_4(i), VLR_SUMS_4(i + 1)
#define VLR_NEW_4(i) "=f"(d[i][0]), "=f"(d[i][1]), "=f"(d[i][2]), "=f"(d[i][3])
#define VLR_NEW_16(i) VLR_NEW_4(i), VLR_NEW_4(i + 1), VLR_NEW_4(i + 2), VLR_NEW_4(i + 3)
#define VLR_SUMS_32(i) VLR_SUMS_8(i), VLR_SUMS_8(i + 2), VLR_SUMS_8(i + 4), VLR_SUMS_8(i + 6)
#define VLR_LIST_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define VLR_LIST_16 VLR_LIST_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define VLR_LIST_32 \
  VLR_LIST_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define VLR_LIST_36 VLR_LIST_32 ", %32, %33, %34, %35"
#define VLR_LIST_48 VLR_LIST_36 ", %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define VLR_LIST_64                                                               \
  VLR_LIST_48                                                                     \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, " \
  "%63"

// "aN, ..." number the operands that follow the sums.
#define VLR_WGMMA_RS(shape, type, sums, a0, a1, a2, a3, lines, transposed, ...)                \
  asm volatile("wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" sums "}, {" a0 \
               ", " a1 ", " a2 ", " a3 "}, " lines ", 1, 1, 1, " transposed ";"                \
               : __VA_ARGS__                                                                   \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(kColumns))
#define VLR_WGMMA_SS(shape, type, sums, a_lines, b_lines, adds, ...)                               \
  asm volatile("wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" sums "}, " a_lines \
               ", " b_lines ", " adds ", 1, 1, 0, 0;"                                              \
               : __VA_ARGS__                                                                       \
               : "l"(a), "l"(b), "n"(kAdds))
#define VLR_BY_TYPE(instruction, shape, ...)        \
  do {                                              \
    if constexpr (std::is_same_v<T, __nv_bfloat16>) \
      instruction(shape, "bf16", __VA_ARGS__);      \
    else                                            \
      instruction(shape, "f16", __VA_ARGS__);       \
  } while (false)

/// d += A B; d[i] is columns 8 i..8 i + 7. N = 8 kFrags: 16, 32, 64, 72 or 128. B is described by
/// wgmma_columns where kColumns, else by wgmma_lines.
template <class T, int kFrags, bool kColumns = false>
__device__ inline void wgmma_64xNx16(float (&d)[kFrags][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  static_assert(kFrags == 2 || kFrags == 4 || kFrags == 8 || kFrags == 9 || kFrags == 16);
  if constexpr (kFrags == 2) {
    VLR_BY_TYPE(VLR_WGMMA_RS, "m64n16k16", VLR_LIST_8, "%8", "%9", "%10", "%11", "%12", "%13",
                VLR_SUMS_8(0));
  } else if constexpr (kFrags == 4) {
    VLR_BY_TYPE(VLR_WGMMA_RS, "m64n32k16", VLR_LIST_16, "%16", "%17", "%18", "%19", "%20", "%21",
                VLR_SUMS_8(0), VLR_SUMS_8(2));
  } else if constexpr (kFrags == 8) {
    VLR_BY_TYPE(VLR_WGMMA_RS, "m64n64k16", VLR_LIST_32, "%32", "%33", "%34", "%35", "%36", "%37",
                VLR_SUMS_32(0));
  } else if constexpr (kFrags == 9) {
    VLR_BY_TYPE(VLR_WGMMA_RS, "m64n72k16", VLR_LIST_36, "%36", "%37", "%38", "%39", "%40", "%41",
                VLR_SUMS_32(0), VLR_SUMS_4(8));
  } else {
    VLR_BY_TYPE(VLR_WGMMA_RS, "m64n128k16", VLR_LIST_64, "%64", "%65", "%66", "%67", "%68", "%69",
                VLR_SUMS_32(0), VLR_SUMS_32(8));
  }
}

/// d = A B, or d += A B where kAdds, with A [64, 16] in shared memory as well. N = 8 kFrags: 32, 64,
/// 96 or 128. Both are described by wgmma_lines or wgmma_lines_32.
template <class T, int kFrags, bool kAdds>
__device__ inline void wgmma_64xNx16_ss(float (&d)[kFrags][4], uint64_t a, uint64_t b) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  static_assert(kFrags == 4 || kFrags == 8 || kFrags == 12 || kFrags == 16);
  if constexpr (!kAdds) {  // what d held before is of no interest, and need not be kept
    if constexpr (kFrags == 4)
      VLR_BY_TYPE(VLR_WGMMA_SS, "m64n32k16", VLR_LIST_16, "%16", "%17", "%18", VLR_NEW_16(0));
    else if constexpr (kFrags == 8)
      VLR_BY_TYPE(VLR_WGMMA_SS, "m64n64k16", VLR_LIST_32, "%32", "%33", "%34", VLR_NEW_16(0),
                  VLR_NEW_16(4));
    else if constexpr (kFrags == 12)
      VLR_BY_TYPE(VLR_WGMMA_SS, "m64n96k16", VLR_LIST_48, "%48", "%49", "%50", VLR_NEW_16(0),
                  VLR_NEW_16(4), VLR_NEW_16(8));
    else
      VLR_BY_TYPE(VLR_WGMMA_SS, "m64n128k16", VLR_LIST_64, "%64", "%65", "%66", VLR_NEW_16(0),
                  VLR_NEW_16(4), VLR_NEW_16(8), VLR_NEW_16(12));
  } else if constexpr (kFrags == 4) {
    VLR_BY_TYPE(VLR_WGMMA_SS, "m64n32k16", VLR_LIST_16, "%16", "%17", "%18", VLR_SUMS_8(0),
                VLR_SUMS_8(2));
  } else if constexpr (kFrags == 8) {
    VLR_BY_TYPE(VLR_WGMMA_SS, "m64n64k16", VLR_LIST_32, "%32", "%33", "%34", VLR_SUMS_32(0));
  } else if constexpr (kFrags == 12) {
    VLR_BY_TYPE(VLR_WGMMA_SS, "m64n96k16", VLR_LIST_48, "%48", "%49", "%50", VLR_SUMS_32(0),
                VLR_SUMS_8(8), VLR_SUMS_8(10));
  } else {
    VLR_BY_TYPE(VLR_WGMMA_SS, "m64n128k16", VLR_LIST_64, "%64", "%65", "%66", VLR_SUMS_32(0),
                VLR_SUMS_32(8));
  }
}

#undef VLR_BY_TYPE
#undef VLR_WGMMA_SS
#undef VLR_WGMMA_RS
#undef VLR_LIST_64
#undef VLR_LIST_48
#undef VLR_LIST_36
#undef VLR_LIST_32
#undef VLR_LIST_16
#undef VLR_LIST_8
#undef VLR_SUMS_32
#undef VLR_SUMS_8
#undef VLR_SUMS_4
#undef VLR_NEW_16
#undef VLR_NEW_4

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_WGMMA_CUH_
