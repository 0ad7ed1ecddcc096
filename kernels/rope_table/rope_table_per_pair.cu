// rope_table/per_pair: one thread per token and pair, with the accurate sine and cosine.
//   grid ceil(T / rows of a block)   block (threads along the pairs, tokens)
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/rope_table/impls.h"

namespace vlr::ops {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    per_pair_kernel(const int32_t* positions, int64_t axis_stride, const int32_t* axis,
                    const float* inv_freq, float* table, int64_t tokens, int64_t pairs) {
  const int64_t t = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (t >= tokens) return;
  float* cosine = table + t * 2 * pairs;
  for (int64_t j = threadIdx.x; j < pairs; j += blockDim.x) {
    const float position = static_cast<float>(positions[axis[j] * axis_stride + t]);
    sincosf(position * inv_freq[j], &cosine[pairs + j], &cosine[j]);
  }
}

}  // namespace

Status rope_table_per_pair(const RopeTable::Args& a, Context& ctx) {
  const int64_t tokens = a.positions.dim(1), pairs = a.axis.dim(0);
  if (tokens == 0 || pairs == 0) return {};
  const auto along = static_cast<unsigned>(std::min<int64_t>(pairs, kThreads));
  const unsigned block_tokens = kThreads / along;
  const auto blocks = static_cast<unsigned>((tokens + block_tokens - 1) / block_tokens);
  per_pair_kernel<<<blocks, dim3(along, block_tokens), 0, ctx.stream>>>(
      a.positions.as<int32_t>(), a.positions.stride(0), a.axis.as<int32_t>(),
      a.inv_freq.as<float>(), a.table.as<float>(), tokens, pairs);
  return cuda::to_status(cudaGetLastError(), "rope_table/per_pair launch");
}

}  // namespace vlr::ops
