/// Which dtypes activations and weights have, and go together: for contracts.
#ifndef VLR_KERNELS_CORE_ACTIVATION_DTYPES_H_
#define VLR_KERNELS_CORE_ACTIVATION_DTYPES_H_

#include "kernels/core/op.h"

namespace vlr::ops {

inline Status expect_activation(std::string_view op, std::string_view operand,
                                const ConstTensor& t) {
  return expect_dtype(op, operand, t, {DType::kF32, DType::kBF16, DType::kF16});
}

/// A weight has the dtype of the activation `x` that it meets; with f32 it may be 16 bits wide too.
inline Status expect_weight(std::string_view op, std::string_view operand, const ConstTensor& w,
                            const ConstTensor& x) {
  if (x.dtype == DType::kF32) return expect_activation(op, operand, w);
  return expect_dtype(op, operand, w, {x.dtype});
}

/// The distance between neighbours around zero, where a relative error says nothing; f32 and bf16
/// reach down to 1e-38, which is nothing.
inline double least_step(DType t) { return t == DType::kF16 ? 0x1p-24 : 0; }

}  // namespace vlr::ops

#endif  // VLR_KERNELS_CORE_ACTIVATION_DTYPES_H_
