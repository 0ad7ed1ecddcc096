/// One element of a tensor of any floating-point dtype as f32: for references.
#ifndef VLR_KERNELS_CORE_LOAD_H_
#define VLR_KERNELS_CORE_LOAD_H_

#include "kernels/core/tensor.h"

namespace vlr {

/// Element `index`, widened; counted from t.data in elements.
inline float load_f32(const ConstTensor& t, int64_t index) {
  switch (t.dtype) {
    case DType::kBF16:
      return bf16_to_f32(t.as<uint16_t>()[index]);
    case DType::kF16:
      return f16_to_f32(t.as<uint16_t>()[index]);
    default:
      return t.as<float>()[index];
  }
}

/// The reverse: rounds to the tensor's dtype.
inline void store_f32(const Tensor& t, int64_t index, float value) {
  switch (t.dtype) {
    case DType::kBF16:
      t.as<uint16_t>()[index] = f32_to_bf16(value);
      return;
    case DType::kF16:
      t.as<uint16_t>()[index] = f32_to_f16(value);
      return;
    default:
      t.as<float>()[index] = value;
  }
}

/// `value` as an element of `dtype` would hold it.
inline float round_to(DType dtype, float value) {
  switch (dtype) {
    case DType::kBF16:
      return bf16_to_f32(f32_to_bf16(value));
    case DType::kF16:
      return f16_to_f32(f32_to_f16(value));
    default:
      return value;
  }
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_LOAD_H_
