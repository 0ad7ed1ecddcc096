/// From sums in the registers of mma.sync to y, for products of any operands: bias, activation,
/// residual, one rounding. Every operation is spelled out, so that no kernel's code is contracted
/// in another way: the bits do not depend on the tile.
#ifndef VLR_KERNELS_LINEAR_MMA_EPILOGUE_CUH_
#define VLR_KERNELS_LINEAR_MMA_EPILOGUE_CUH_

#include <cstring>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/linear/linear.h"

namespace vlr::ops {

struct Epilogue {
  const void *bias, *residual;  // may be null
  void* y;                      // may be residual
  int64_t residual_stride, y_stride;
  int m, n;
  bool gelu;
};

/// Args: Linear's or another op's with the same operands behind the product.
template <class Args>
Epilogue epilogue_of(const Args& a) {
  return {.bias = a.bias.data,
          .residual = a.residual.data,
          .y = a.y.data,
          .residual_stride = a.residual.stride(0),
          .y_stride = a.y.stride(0),
          .m = static_cast<int>(a.y.dim(0)),
          .n = static_cast<int>(a.y.dim(1)),
          .gelu = a.activation == Activation::kGeluTanh};
}

/// Whether every row of a 16-bit or 8-bit matrix, where there is one, starts at 16 bytes.
inline bool is_16_byte(const ConstTensor& t) {
  return !t.defined() || (reinterpret_cast<uintptr_t>(t.data) % 16 == 0 &&
                          t.stride(0) * dtype_bytes(t.dtype) % 16 == 0);
}

/// 0.5 z (1 + tanh(u)) = z / (1 + exp(-2 u)), u = sqrt(2 / pi) (z + 0.044715 z^3).
__device__ inline float gelu_tanh(float z) {
  constexpr float kScale = -2.302208198f;  // -2 sqrt(2 / pi) log2(e)
  const float u = __fmul_rn(z, __fmaf_rn(kScale * 0.044715f, __fmul_rn(z, z), kScale));
  return __fdividef(z, __fadd_rn(1.0f, exp2f(u)));
}

/// Lane t of each four has v[q] for q of 0..3; then lane q has it as v[t].
__device__ inline void transpose_quad(uint32_t (&v)[4]) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = threadIdx.x & distance;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if (q & distance) continue;
      const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? v[q] : v[q + distance], distance);
      (upper ? v[q] : v[q + distance]) = got;
    }
  }
}

template <class T>
__device__ inline float2 unpack(uint32_t bits) {
  T v[2];
  memcpy(v, &bits, sizeof(bits));
  return {cuda::widen(v[0]), cuda::widen(v[1])};
}

/// This lane's pairs of the bias of four neighbouring fragments from column `column` on.
template <class T>
__device__ inline void load_bias(const Epilogue& e, int column, float2 (&b)[4]) {
  const T* bias = static_cast<const T*>(e.bias);
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const int n = column + q * 8 + threadIdx.x % 4 * 2;
    b[q].x = bias && n < e.n ? cuda::widen(bias[n]) : 0.0f;
    b[q].y = bias && n + 1 < e.n ? cuda::widen(bias[n + 1]) : 0.0f;
  }
}

/// Residual and rounding of finish(). Lanes trade so that each handles 16 bytes.
template <class T>
__device__ inline void finish_aligned(const Epilogue& e, int row, int column, float2 (&v)[4]) {
  const int own_column = column + 8 * (threadIdx.x % 4);
  const bool valid = row < e.m && own_column < e.n;
  uint32_t bits[4] = {};
  if (e.residual) {
    if (valid) {
      const uint4 chunk = *reinterpret_cast<const uint4*>(static_cast<const T*>(e.residual) +
                                                          row * e.residual_stride + own_column);
      bits[0] = chunk.x, bits[1] = chunk.y, bits[2] = chunk.z, bits[3] = chunk.w;
    }
    transpose_quad(bits);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const float2 r = unpack<T>(bits[q]);
      v[q] = {__fadd_rn(v[q].x, r.x), __fadd_rn(v[q].y, r.y)};
    }
  }
#pragma unroll
  for (int q = 0; q < 4; ++q) bits[q] = cuda::pack<T>(v[q].x, v[q].y);
  transpose_quad(bits);
  if (valid) {
    *reinterpret_cast<uint4*>(static_cast<T*>(e.y) + row * e.y_stride + own_column) =
        make_uint4(bits[0], bits[1], bits[2], bits[3]);
  }
}

/// The same, element by element.
template <class T>
__device__ inline void finish_any(const Epilogue& e, int row, int column, float2 (&v)[4]) {
  if (row >= e.m) return;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int n = column + i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
    if (n >= e.n) continue;
    float value = i % 2 ? v[i / 2].y : v[i / 2].x;
    if (e.residual)
      value = __fadd_rn(
          value, cuda::widen(static_cast<const T*>(e.residual)[row * e.residual_stride + n]));
    static_cast<T*>(e.y)[row * e.y_stride + n] = T(value);  // rounds to nearest
  }
}

/// One row, four neighbouring fragments from column `column` on: this lane's pairs of sums v -> y.
/// All lanes of a warp come here together. kAligned: N and every row are multiples of 16 bytes.
template <class T, bool kAligned>
__device__ inline void finish(const Epilogue& e, int row, int column, const float2 (&bias)[4],
                              float2 (&v)[4]) {
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    v[q] = {__fadd_rn(v[q].x, bias[q].x), __fadd_rn(v[q].y, bias[q].y)};
    if (e.gelu) v[q] = {gelu_tanh(v[q].x), gelu_tanh(v[q].y)};
  }
  if constexpr (kAligned) {
    finish_aligned<T>(e, row, column, v);
  } else {
    finish_any<T>(e, row, column, v);
  }
}

}  // namespace vlr::ops

#endif  // VLR_KERNELS_LINEAR_MMA_EPILOGUE_CUH_
