// Comparing two results bit by bit: a grid-stride loop, one atomic a warp that found something.
#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"

namespace vlr::cuda {
namespace {

constexpr int kThreads = 256, kMaxBlocks = 1024;

__global__ void __launch_bounds__(kThreads)
    count_differences_kernel(const uint16_t* a, const uint16_t* b, int64_t n,
                             unsigned long long* count) {
  unsigned found = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * kThreads)
    found += a[i] != b[i];
  found = __reduce_add_sync(0xffffffffu, found);
  if (threadIdx.x % 32 == 0 && found) atomicAdd(count, found);
}

}  // namespace

Status count_differences(const void* a, const void* b, int64_t n, unsigned long long* count,
                         CUstream_st* stream) {
  if (n == 0) return {};
  const auto blocks =
      static_cast<unsigned>(std::min<int64_t>(kMaxBlocks, (n + kThreads - 1) / kThreads));
  count_differences_kernel<<<blocks, kThreads, 0, stream>>>(
      static_cast<const uint16_t*>(a), static_cast<const uint16_t*>(b), n, count);
  return to_status(cudaGetLastError(), "count_differences launch");
}

}  // namespace vlr::cuda
