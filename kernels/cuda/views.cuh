/// Rows of tensors on the device.
#ifndef VLR_KERNELS_CUDA_VIEWS_CUH_
#define VLR_KERNELS_CUDA_VIEWS_CUH_

#include <cstdint>

#include "kernels/core/tensor.h"

namespace vlr::cuda {

/// [rows, dim].
template <class T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* operator[](int64_t row) const { return data + row * stride; }
};
template <class T>
Rows<T> rows_of(const Tensor& t) {
  return {t.as<T>(), t.stride(0)};
}
template <class T>
Rows<const T> rows_of(const ConstTensor& t) {
  return {t.as<T>(), t.stride(0)};
}

/// [rows, heads, dim], or [rows, dim] as one head.
template <class T>
struct Heads {
  T* data;
  int64_t stride, head_stride;
  __device__ T* at(int64_t row, int64_t head) const {
    return data + row * stride + head * head_stride;
  }
};
template <class T>
Heads<T> heads_of(const Tensor& t) {
  return {t.as<T>(), t.stride(0), t.rank == 3 ? t.stride(1) : 0};
}
template <class T>
Heads<const T> heads_of(const ConstTensor& t) {
  return {t.as<T>(), t.stride(0), t.rank == 3 ? t.stride(1) : 0};
}
inline int64_t num_heads(const ConstTensor& t) { return t.rank == 3 ? t.dim(1) : 1; }

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_VIEWS_CUH_
