#ifndef EMU_CHECK_H_
#define EMU_CHECK_H_
#include <string>
#include <string_view>
#include "../../../emu.h"
#include "vlr/status.h"
namespace vlr::cuda {
inline Status to_status(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return {};
  return Status(error == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kDevice,
                std::string(what) + ": " + cudaGetErrorString(error));
}
inline Status check_architecture() { return {}; }
}  // namespace vlr::cuda
#define VLR_CUDA_TRY(call) VLR_RETURN_IF_ERROR(::vlr::cuda::to_status((call), #call))
#endif
