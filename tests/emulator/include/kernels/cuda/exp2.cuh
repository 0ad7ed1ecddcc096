#ifndef EMU_EXP2_CUH_
#define EMU_EXP2_CUH_
#include "../../../emu.h"
namespace vlr::cuda {
inline float exp2_approx(float x) {
  if (std::fabs(x) < 1.17549435e-38f) return 1;
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}
}  // namespace vlr::cuda
#endif
