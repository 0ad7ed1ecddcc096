// first_difference: a thread an element, looping; the least index that is wrong by an atomic minimum.
// checksum: a thread eight bytes, looping; a thread's sum is added atomically.
//   grid up to 4096   block 256   shared memory: none
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "bench/support/checksum.h"
#include "bench/support/compare_values.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/memory.h"

namespace vlr::bench {
namespace {

constexpr int kThreads = 256, kMaxBlocks = 4096;
constexpr unsigned long long kNone = ~0ull;

__device__ float value(float v) { return v; }
__device__ float value(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ float value(__half v) { return __half2float(v); }
__device__ float value(int8_t v) { return v; }
/// An e4m3 code as its place among the values, which rise with it.
__device__ float value(uint8_t v) { return (v & 0x80) != 0 ? -static_cast<float>(v & 0x7f) : v; }

template <class T>
__global__ void __launch_bounds__(kThreads)
    first_difference_kernel(const T* a, const T* b, int64_t count, float rel, float abs,
                            unsigned long long* first) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const float x = value(a[i]), y = value(b[i]);
    const bool same =
        x == y || (isnan(x) && isnan(y)) || fabsf(x - y) <= rel * fmaxf(fabsf(x), fabsf(y)) + abs;
    if (!same) atomicMin(first, static_cast<unsigned long long>(i));
  }
}

/// Operands and guards begin at multiples of eight bytes; an odd end is done byte by byte.
__global__ void __launch_bounds__(kThreads)
    checksum_kernel(const std::byte* p, int64_t bytes, unsigned long long* sum) {
  const bool aligned = reinterpret_cast<uintptr_t>(p) % 8 == 0;
  const int64_t words = bytes / 8, step = int64_t{gridDim.x} * kThreads;
  const int64_t begin = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  uint64_t own = 0;
  for (int64_t i = begin; i < words; i += step) {
    uint64_t word = 0;
    if (aligned) {
      word = reinterpret_cast<const uint64_t*>(p)[i];
    } else {
      for (int b = 0; b < 8; ++b) word |= static_cast<uint64_t>(p[8 * i + b]) << 8 * b;
    }
    own += mixed(word, static_cast<uint64_t>(i));
  }
  for (int64_t i = 8 * words + begin; i < bytes; i += step)
    own += mixed(static_cast<uint64_t>(p[i]), static_cast<uint64_t>(i));
  atomicAdd(sum, static_cast<unsigned long long>(own));
}

unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>(
      std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, kMaxBlocks));
}

}  // namespace

Result<uint64_t> checksum_on_device(const std::byte* p, int64_t bytes, std::byte* memory,
                                    CUstream_st* stream) {
  auto* const sum = reinterpret_cast<unsigned long long*>(memory);
  VLR_CUDA_TRY(cudaMemsetAsync(sum, 0, sizeof *sum, stream));
  checksum_kernel<<<blocks_for(bytes / 8), kThreads, 0, stream>>>(p, bytes, sum);
  VLR_CUDA_TRY(cudaGetLastError());
  unsigned long long found = 0;
  VLR_CUDA_TRY(cudaMemcpyAsync(&found, sum, sizeof found, cudaMemcpyDeviceToHost, stream));
  VLR_CUDA_TRY(cudaStreamSynchronize(stream));
  return static_cast<uint64_t>(found);
}

Result<int64_t> first_difference(const Tensor& a, const Tensor& b, const Tolerance& tolerance,
                                 CUstream_st* stream) {
  const int64_t count = a.numel();
  if (count == 0) return int64_t{-1};
  VLR_ASSIGN_OR_RETURN(std::byte * memory, cuda::allocate_device(sizeof kNone));
  const std::unique_ptr<std::byte, void (*)(std::byte*)> owner(memory, cuda::free_device);
  auto* const first = reinterpret_cast<unsigned long long*>(memory);
  VLR_CUDA_TRY(cudaMemsetAsync(first, 0xFF, sizeof kNone, stream));
  const unsigned blocks = blocks_for(count);
  // Each of both may be off by the tolerance.
  const auto rel = static_cast<float>(2 * tolerance.rel),
             abs = static_cast<float>(2 * tolerance.abs);
  const auto compare = [&]<class T>(T) {
    first_difference_kernel<<<blocks, kThreads, 0, stream>>>(
        a.as<T>(), b.as<T>(), count, rel, std::is_integral_v<T> ? 1 : abs, first);
  };
  switch (a.dtype) {
    case DType::kBF16:
      compare(__nv_bfloat16());
      break;
    case DType::kF16:
      compare(__half());
      break;
    case DType::kI8:
      compare(int8_t());
      break;
    case DType::kF8E4M3:
      compare(uint8_t());
      break;
    default:
      compare(float());
  }
  VLR_CUDA_TRY(cudaGetLastError());
  unsigned long long found = kNone;
  VLR_CUDA_TRY(cudaMemcpyAsync(&found, first, sizeof found, cudaMemcpyDeviceToHost, stream));
  VLR_CUDA_TRY(cudaStreamSynchronize(stream));
  return found == kNone ? int64_t{-1} : static_cast<int64_t>(found);
}

}  // namespace vlr::bench
