#ifndef EMU_WGMMA_CUH_
#define EMU_WGMMA_CUH_
#include "../../../emu.h"
namespace vlr::cuda {
// Compilers must take the value as changed, as on the device; memory is what products go through.
inline void pin(uint32_t& word) { asm volatile("" : "+m"(word) : : "memory"); }
inline void pin(float& value) { asm volatile("" : "+m"(value) : : "memory"); }
inline void wgmma_fence() { emu::products_fence(); }
inline void wgmma_commit() { emu::products_commit(); }
template <int kPending> void wgmma_wait() { emu::products_wait(kPending); }
template <int kCount> void decrease_registers() { static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256); }
template <int kCount> void increase_registers() { static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256); }

inline uint64_t emu_lines(uint64_t mode, uint32_t address, uint32_t leading, uint32_t stride) {
  return mode << 62 | uint64_t{stride >> 4} << 32 | uint64_t{leading >> 4} << 16 | (address & 0x3ffff) >> 4;
}
inline uint64_t wgmma_lines(uint32_t address) { return emu_lines(1, address, 16, 1024); }
inline uint64_t wgmma_lines_64(uint32_t address) { return emu_lines(2, address, 16, 512); }
inline uint64_t wgmma_lines_32(uint32_t address) { return emu_lines(3, address, 16, 256); }
inline uint64_t wgmma_columns(uint32_t address, uint32_t slab_bytes) { return emu_lines(1, address, slab_bytes, 1024); }

template <class T> constexpr bool emu_is_bf16() {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  return std::is_same_v<T, __nv_bfloat16>;
}
template <class T, int kFrags, bool kAccumulate>
void wgmma_64xNx16_ss(float (&d)[kFrags][4], uint64_t a, uint64_t b) {
  static_assert(kFrags >= 1 && kFrags <= 32);
  emu::product({false, emu_is_bf16<T>(), kAccumulate, kFrags, a, b, &d[0][0], nullptr});
}
/// A in registers; B K-major, or MN-major where kColumns. (a_lines: 0 K-major, 1 MN-major.)
template <class T, int kFrags, bool kColumns = false>
void wgmma_64xNx16(float (&d)[kFrags][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kFrags >= 1 && kFrags <= 32);
  emu::product({true, emu_is_bf16<T>(), true, kFrags, kColumns ? 1u : 0u, b, &d[0][0], a});
}
template <class T, int kFrags>
void wgmma_64xNx16_rs_columns(float (&d)[kFrags][4], const uint32_t (&a)[4], uint64_t b) {
  wgmma_64xNx16<T, kFrags, true>(d, a, b);
}
}  // namespace vlr::cuda
#endif
