#ifndef EMU_CP_ASYNC_CUH_
#define EMU_CP_ASYNC_CUH_
#include "../../../emu.h"
namespace vlr::cuda {
inline void cp_async_16(uint32_t shared, const void* global) {
  std::memcpy(emu::shared_bytes(shared, 16), global, 16);
}
inline void cp_async_16_or_zero(uint32_t shared, const void* global, bool valid) {
  if (valid) return cp_async_16(shared, global);
  std::memset(emu::shared_bytes(shared, 16), 0, 16);
}
inline void cp_async_commit() {}
template <int kPending> void cp_async_wait() {}
}  // namespace vlr::cuda
#endif
