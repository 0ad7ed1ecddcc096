/// RMSNorm of a row in registers, for the ops that end in one.
#ifndef VLR_KERNELS_RMSNORM_RMSNORM_CUH_
#define VLR_KERNELS_RMSNORM_RMSNORM_CUH_

#include "kernels/cuda/reciprocal.cuh"
#include "kernels/cuda/row_in_registers.cuh"

namespace vlr::cuda {

/// Replaces a row by its norm, rounded where the contract of rmsnorm says. All threads of the block
/// take part; `partial` is row_sum's.
template <class Part, class T>
__device__ inline void rmsnorm_in_registers(Part& row, const T* __restrict__ weight, int dim,
                                            float eps, float* partial) {
  const float squares =
      Part::sum(row.fold([](float s, float v) { return fmaf(v, v, s); }), partial);
  const float scale = rsqrtf(fmaf(squares, reciprocal_approx(static_cast<float>(dim)), eps));
#pragma unroll
  for (int v = 0; v < Part::kVectors; ++v) {
    float normed[kVec];
#pragma unroll
    for (int i = 0; i < kVec; ++i) normed[i] = row.at[v][i] * scale;
    const Vec<T, kVec> rounded = Vec<T, kVec>::of(normed);
    const Vec<T, kVec> weights = Part::load_vector(weight, v, dim);
#pragma unroll
    for (int i = 0; i < kVec; ++i) normed[i] = rounded[i] * weights[i];
    row.at[v] = Vec<T, kVec>::of(normed);
  }
}

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_RMSNORM_RMSNORM_CUH_
