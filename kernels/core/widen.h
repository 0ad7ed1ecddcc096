/// A whole vector of weights as f32: for implementations that read it more than once.
#ifndef VLR_KERNELS_CORE_WIDEN_H_
#define VLR_KERNELS_CORE_WIDEN_H_

#include <algorithm>

#include "kernels/core/tensor.h"

namespace vlr {

/// Elements [begin, begin + count) of a contiguous f32, bf16 or f16 tensor.
inline void widen(const ConstTensor& t, int64_t begin, int64_t count, float* out) {
  const auto* half = t.as<uint16_t>() + (t.dtype == DType::kF32 ? 0 : begin);
  if (t.dtype == DType::kBF16) {
    for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(half[i]);
  } else if (t.dtype == DType::kF16) {
    for (int64_t i = 0; i < count; ++i) out[i] = f16_to_f32(half[i]);
  } else {
    std::copy_n(t.as<float>() + begin, count, out);
  }
}

inline void widen(const ConstTensor& t, float* out) { widen(t, 0, t.numel(), out); }

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_WIDEN_H_
