// Only what element.cuh needs to compile.
#ifndef EMU_FP8_CUH_
#define EMU_FP8_CUH_
#include "../../../emu.h"
namespace vlr::cuda {
struct E4M3 { uint8_t bits; };
inline float2 from_e4m3_pair(uint16_t) { emu::fail("fp8 is not emulated"); }
inline uint16_t to_e4m3_pair(float, float) { emu::fail("fp8 is not emulated"); }
}  // namespace vlr::cuda
#endif
