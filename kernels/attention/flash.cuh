/// What the flash kernels share: online softmax in powers of two, and what they want of operands.
#ifndef VLR_KERNELS_ATTENTION_FLASH_CUH_
#define VLR_KERNELS_ATTENTION_FLASH_CUH_

#include <string>
#include <string_view>

#include "kernels/attention/attention.h"

namespace vlr::ops {

/// Scores are taken relative to a reference that follows their maximum, but moves only when the
/// maximum is more than this above it. So p <= 2^8, and sums are rarely rescaled.
constexpr float kHeadroom = 8;  // in powers of two

constexpr float kLog2E = 1.44269504f;  // e^x = 2^(kLog2E x)

/// The maximum (or sum) over the four lanes that share a row of an mma's or a wgmma's accumulators,
/// in all four of them.
__device__ inline float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float quad_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/// The binary logarithm of attention_pack().
inline int log_of_pack(const Attention::Args& a) {
  int log = 0;
  while (1 << log < attention_pack(a.q.dim(1), a.k.dim(1))) ++log;
  return log;
}

/// kInvalidArgument unless there are tables, and operands start where copies of 16 bytes may.
inline Status check_flash(std::string_view name, const Attention::Args& a) {
  if (!a.table.segments.defined() || !a.table.tiles.defined())
    return invalid(Attention::kName, std::string(name) + " needs the table of segments and tiles");
  for (const void* data : {a.q.data, a.k.data, a.v.data, a.prefix_k.data, a.prefix_v.data,
                           static_cast<const void*>(a.o.data)}) {
    if (reinterpret_cast<uintptr_t>(data) % 16 != 0)
      return invalid(Attention::kName,
                     std::string(name) + " needs operands that start at multiples of 16 bytes");
  }
  return {};
}

}  // namespace vlr::ops

#endif  // VLR_KERNELS_ATTENTION_FLASH_CUH_
