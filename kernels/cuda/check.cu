// check_architecture: the driver is asked for a kernel of the portable path, which is compiled for the
// same architectures as all others; it is never launched.
#include <string>

#include "kernels/cuda/check.h"

namespace vlr::cuda {
namespace {

__global__ void portable_kernel() {}

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

}  // namespace vlr::cuda
