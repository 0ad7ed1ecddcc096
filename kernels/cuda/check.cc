#include "kernels/cuda/check.h"

#include <string>

namespace vlr::cuda {

Status to_status(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return {};
  const Code code = error == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kDevice;
  return {code, std::string(what) + ": " + cudaGetErrorString(error)};
}

}  // namespace vlr::cuda
