// fill_random: two elements from one hash per step.
//   grid up to 4096, looping   block 256   shared memory: none
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "bench/support/fill_random.h"
#include "kernels/cuda/check.h"

namespace vlr::bench {
namespace {

constexpr int kThreads = 256, kMaxBlocks = 4096;

__device__ uint64_t hash(uint64_t z) {  // SplitMix64's output function
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// Box & Muller 1958.
__device__ float2 two_normals(uint64_t bits) {
  const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
  const float v = static_cast<float>(bits & 0xffffff) * 0x1p-23f;
  const float radius = sqrtf(-2 * __logf(u));
  float sine, cosine;
  sincospif(v, &sine, &cosine);
  return {radius * cosine, radius * sine};
}

__device__ void put(float* to, float v) { *to = v; }
__device__ void put(__nv_bfloat16* to, float v) { *to = __float2bfloat16(v); }
__device__ void put(__half* to, float v) { *to = __float2half(v); }
/// Codes of a row whose largest value, about four deviations, has the largest code.
__device__ void put(int8_t* to, float v) {
  *to = static_cast<int8_t>(max(-127, min(127, __float2int_rn(v * (127.0f / 4)))));
}
__device__ void put(__nv_fp8_e4m3* to, float v) {
  to->__x = __nv_cvt_float_to_fp8(v * (448.0f / 4), __NV_SATFINITE, __NV_E4M3);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    fill_normal_kernel(T* out, int64_t count, uint64_t seed) {
  const int64_t step = int64_t{gridDim.x} * kThreads * 2;
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 2; i < count; i += step) {
    const float2 v = two_normals(hash(seed + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15));
    put(out + i, i == 0 ? float{kFirstValue} : v.x);
    if (i + 1 < count) put(out + i + 1, v.y);
  }
}

__global__ void __launch_bounds__(kThreads)
    fill_bytes_kernel(uint8_t* out, int64_t count, uint64_t seed) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const uint64_t bits = hash(seed + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15);
    out[i] = i == 0 ? kFirstCode : static_cast<uint8_t>(bits >> 32);
  }
}

}  // namespace

Status fill_random(const Tensor& t, uint64_t seed, CUstream_st* stream) {
  const int64_t count = t.numel();
  if (count == 0) return {};
  seed *= 0xd1342543de82ef95;  // seeds 0, 1, 2, ... start far apart
  const int64_t wanted = (count + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(wanted, kMaxBlocks));
  switch (t.dtype) {
    case DType::kU8:
      fill_bytes_kernel<<<blocks, kThreads, 0, stream>>>(t.as<uint8_t>(), count, seed);
      break;
    case DType::kI8:
      fill_normal_kernel<<<blocks, kThreads, 0, stream>>>(t.as<int8_t>(), count, seed);
      break;
    case DType::kF8E4M3:
      fill_normal_kernel<<<blocks, kThreads, 0, stream>>>(t.as<__nv_fp8_e4m3>(), count, seed);
      break;
    case DType::kBF16:
      fill_normal_kernel<<<blocks, kThreads, 0, stream>>>(t.as<__nv_bfloat16>(), count, seed);
      break;
    case DType::kF16:
      fill_normal_kernel<<<blocks, kThreads, 0, stream>>>(t.as<__half>(), count, seed);
      break;
    default:
      fill_normal_kernel<<<blocks, kThreads, 0, stream>>>(t.as<float>(), count, seed);
  }
  return cuda::to_status(cudaGetLastError(), "fill_random launch");
}

}  // namespace vlr::bench
