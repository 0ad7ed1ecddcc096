/// Neighbouring elements moved in accesses of 16 (or 8) bytes and kept as they are in memory, two
/// 16-bit elements to a register.
#ifndef VLR_KERNELS_CUDA_VECTOR_CUH_
#define VLR_KERNELS_CUDA_VECTOR_CUH_

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/cuda/element.cuh"

namespace vlr::cuda {

constexpr int kVec = 8;  ///< elements of one vector access: 16 bytes in 16 bits, twice that in f32

/// Two elements of a word, widened, and back.
template <class T>
struct Pair;
template <>
struct Pair<__nv_bfloat16> {
  __device__ static float low(uint32_t word) { return __uint_as_float(word << 16); }
  __device__ static float high(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
  __device__ static uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};
template <>
struct Pair<__half> {
  __device__ static float low(uint32_t word) {
    return __low2float(reinterpret_cast<const __half2&>(word));
  }
  __device__ static float high(uint32_t word) {
    return __high2float(reinterpret_cast<const __half2&>(word));
  }
  __device__ static uint32_t pack(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};

/// The same of four codes; get(word, i) is code i.
template <class T>
struct Quad;
template <>
struct Quad<int8_t> {
  __device__ static float get(uint32_t word, int i) {
    return widen(static_cast<int8_t>(word >> 8 * i));
  }
  __device__ static uint32_t pack(float a, float b, float c, float d) {
    const auto pair = [](float low, float high) {
      return __byte_perm(narrow<int8_t>(low), narrow<int8_t>(high), 0x0040);
    };
    return __byte_perm(pair(a, b), pair(c, d), 0x5410);
  }
};
template <>
struct Quad<E4M3> {
  __device__ static float get(uint32_t word, int i) {
    const float2 pair = from_e4m3_pair(word >> 16 * (i / 2));
    return i % 2 == 0 ? pair.x : pair.y;
  }
  __device__ static uint32_t pack(float a, float b, float c, float d) {
    return to_e4m3_pair(a, b) | to_e4m3_pair(c, d) << 16;
  }
};

/// One store of 8 or 16 bytes. As PTX, because the compiler takes a uint4 apart when it suits it.
/// Source: PTX ISA, "st".
__device__ inline void store_words(void* p, uint32_t a, uint32_t b) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)), "r"(a), "r"(b)
               : "memory");
}
__device__ inline void store_words(void* p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/// kCount elements: a multiple of 8 bytes, or a single element.
template <class T, int kCount>
struct Vec {
  static constexpr int kWords = kCount * static_cast<int>(sizeof(T)) / 4;
  static_assert(kWords % 2 == 0);
  uint32_t word[kWords];

  __device__ float operator[](int i) const {
    if constexpr (sizeof(T) == 4) {
      return __uint_as_float(word[i]);
    } else if constexpr (sizeof(T) == 1) {
      return Quad<T>::get(word[i / 4], i % 4);
    } else {
      return i % 2 == 0 ? Pair<T>::low(word[i / 2]) : Pair<T>::high(word[i / 2]);
    }
  }
  /// Rounds to nearest even.
  __device__ static Vec of(const float (&values)[kCount]) {
    Vec v;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      if constexpr (sizeof(T) == 4) {
        v.word[w] = __float_as_uint(values[w]);
      } else if constexpr (sizeof(T) == 1) {
        v.word[w] =
            Quad<T>::pack(values[4 * w], values[4 * w + 1], values[4 * w + 2], values[4 * w + 3]);
      } else {
        v.word[w] = Pair<T>::pack(values[2 * w], values[2 * w + 1]);
      }
    }
    return v;
  }
  /// p is a multiple of 16 bytes, or of 8 where the vector is no longer.
  __device__ static Vec load(const T* p) {
    Vec v;
    if constexpr (kWords == 2) {
      const uint2 piece = *reinterpret_cast<const uint2*>(p);
      v.word[0] = piece.x, v.word[1] = piece.y;
    } else {
#pragma unroll
      for (int w = 0; w < kWords; w += 4) {
        const uint4 piece = reinterpret_cast<const uint4*>(p)[w / 4];
        v.word[w] = piece.x, v.word[w + 1] = piece.y;
        v.word[w + 2] = piece.z, v.word[w + 3] = piece.w;
      }
    }
    return v;
  }
  __device__ void store(T* p) const {
    if constexpr (kWords == 2) {
      store_words(p, word[0], word[1]);
    } else {
#pragma unroll
      for (int w = 0; w < kWords; w += 4)
        store_words(reinterpret_cast<uint4*>(p) + w / 4, word[w], word[w + 1], word[w + 2],
                    word[w + 3]);
    }
  }
};

template <class T>
struct Vec<T, 1> {
  T element;
  __device__ float operator[](int) const { return widen(element); }
  __device__ static Vec of(const float (&values)[1]) { return {narrow<T>(values[0])}; }
  __device__ static Vec load(const T* p) { return {*p}; }
  __device__ void store(T* p) const { *p = element; }
};

/// Whether the rows of all operands are whole vectors of `count` elements, at addresses that allow
/// their accesses. A kernel that picks its width by this must have the same bits either way.
inline bool in_vectors(std::initializer_list<ConstTensor> operands, int count = kVec) {
  for (const ConstTensor& t : operands) {
    const auto access = static_cast<uintptr_t>(count * dtype_bytes(t.dtype) < 16 ? 8 : 16);
    if (reinterpret_cast<uintptr_t>(t.data) % access != 0 || t.dim(t.rank - 1) % count != 0)
      return false;
    for (int axis = 0; axis + 1 < t.rank; ++axis) {
      if (t.stride(axis) % count != 0) return false;
    }
  }
  return true;
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_VECTOR_CUH_
