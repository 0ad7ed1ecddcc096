/// CUDA errors as Status.
#ifndef VLR_KERNELS_CUDA_CHECK_H_
#define VLR_KERNELS_CUDA_CHECK_H_

#include <cuda_runtime_api.h>

#include <string_view>

#include "vlr/status.h"

namespace vlr::cuda {

/// kOutOfMemory for a failed allocation, kDevice for any other error: "<what>: <CUDA's own words>".
Status to_status(cudaError_t error, std::string_view what);

/// kUnimplemented, with the card's compute capability and the architectures that this build has,
/// where none of them runs on the current device: better said at open than at the first launch.
Status check_architecture();

/// Whether the current device runs what is compiled for sm_90a alone: wgmma and its like.
bool runs_sm90a();

}  // namespace vlr::cuda

/// Leaves the function with the error of a runtime call, if it is one.
#define VLR_CUDA_TRY(call) VLR_RETURN_IF_ERROR(::vlr::cuda::to_status((call), #call))

#endif  // VLR_KERNELS_CUDA_CHECK_H_
