#ifndef EMU_MMA_CUH_
#define EMU_MMA_CUH_
#include "../../../emu.h"
namespace vlr::cuda {
template <class T>
uint32_t pack(float low, float high) {
  const T v[2] = {T(low), T(high)};
  uint32_t bits;
  std::memcpy(&bits, v, 4);
  return bits;
}
}  // namespace vlr::cuda
#endif
