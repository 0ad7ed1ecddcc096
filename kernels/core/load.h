/// One element of a tensor of any floating-point dtype, widened to f32: for references.
#ifndef VLR_KERNELS_CORE_LOAD_H_
#define VLR_KERNELS_CORE_LOAD_H_

#include "kernels/core/tensor.h"

namespace vlr {

/// Element `index`, counted from t.data in elements.
inline float load_f32(const ConstTensor& t, int64_t index) {
  switch (t.dtype) {
    case DType::kBF16: return bf16_to_f32(t.as<uint16_t>()[index]);
    case DType::kF16: return f16_to_f32(t.as<uint16_t>()[index]);
    default: return t.as<float>()[index];
  }
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_LOAD_H_
