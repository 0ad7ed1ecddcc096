// The driver is asked for kernels, which are compiled for the same architectures as all others; they
// are never launched.
#include <string>

#include "kernels/cuda/check.h"

namespace vlr::cuda {
namespace {

__global__ void portable_kernel() {}

/// Has shared memory where it was compiled for sm_90a.
__global__ void sm90a_kernel() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ volatile int mark;
  mark = 0;
#endif
}

}  // namespace

Status check_architecture() {
  cudaFuncAttributes attributes;
  const cudaError_t found = cudaFuncGetAttributes(&attributes, portable_kernel);
  if (found == cudaSuccess) return {};
  (void)cudaGetLastError();
  int device = 0;
  cudaDeviceProp card;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&card, device) != cudaSuccess)
    return to_status(found, "cudaFuncGetAttributes");
  return {Code::kUnimplemented, std::string(card.name) +
                                    ": no kernel in this build runs on compute capability " +
                                    std::to_string(card.major) + "." + std::to_string(card.minor) +
                                    "; it was compiled for " VLR_CUDA_ARCHITECTURES " (" +
                                    cudaGetErrorString(found) + ")"};
}

bool runs_sm90a() {
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, sm90a_kernel) == cudaSuccess)
    return attributes.sharedSizeBytes > 0;
  (void)cudaGetLastError();
  return false;
}

}  // namespace vlr::cuda
