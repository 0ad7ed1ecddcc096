// fill_synthetic: eight elements, one 16-byte store, per thread and step.
//   grid up to 2048, looping   block 256   shared memory: the table, 256 bytes
//   Elements in front of the first 16-byte boundary and behind the last one are block 0's.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/synthetic_fill.h"

namespace vlr::cuda {
namespace {

constexpr int kThreads = 256, kMaxBlocks = 2048;
constexpr int kVec = 8;  // elements of one 16-byte store

struct Table {
  uint16_t values[kMaxSyntheticValues];
};

/// As in model/synthetic.h, which has the source.
__device__ uint64_t splitmix64(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

__global__ void __launch_bounds__(kThreads)
    fill_synthetic_kernel(uint16_t* out, int64_t head, int64_t num_vectors, int64_t count,
                          uint64_t base, int shift, const __grid_constant__ Table table) {
  __shared__ uint16_t values[kMaxSyntheticValues];
  if (threadIdx.x < kMaxSyntheticValues) values[threadIdx.x] = table.values[threadIdx.x];
  __syncthreads();
  const auto value = [&](int64_t i) {
    return values[splitmix64(base + static_cast<uint64_t>(i)) >> shift];
  };
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t v = int64_t{blockIdx.x} * kThreads + threadIdx.x; v < num_vectors; v += step) {
    const int64_t i = head + v * kVec;
    alignas(16) uint16_t eight[kVec];
#pragma unroll
    for (int j = 0; j < kVec; ++j) eight[j] = value(i + j);
    *reinterpret_cast<uint4*>(out + i) = *reinterpret_cast<const uint4*>(eight);
  }
  if (blockIdx.x != 0) return;
  if (threadIdx.x < head) out[threadIdx.x] = value(threadIdx.x);
  const int64_t tail = head + num_vectors * kVec + threadIdx.x;
  if (tail < count) out[tail] = value(tail);
}

}  // namespace

Status fill_synthetic(uint16_t* out, int64_t count, uint64_t base, int shift,
                      std::span<const uint16_t> values, CUstream_st* stream) {
  if (shift < 57 || shift > 63 || values.size() != size_t{1} << (64 - shift)) {
    return {Code::kInternal, "fill_synthetic: shift " + std::to_string(shift) + " with " +
                                 std::to_string(values.size()) + " values"};
  }
  if (count == 0) return {};
  Table table{};
  std::copy(values.begin(), values.end(), table.values);
  const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(out) % 16 / 2);
  const int64_t head = std::min(count, (kVec - misaligned) % kVec);
  const int64_t num_vectors = (count - head) / kVec;
  const int64_t blocks =
      std::clamp<int64_t>((num_vectors + kThreads - 1) / kThreads, 1, kMaxBlocks);
  fill_synthetic_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      out, head, num_vectors, count, base, shift, table);
  return to_status(cudaGetLastError(), "fill_synthetic launch");
}

}  // namespace vlr::cuda
