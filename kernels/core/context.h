/// What an implementation runs with: device, threads or stream, scratch memory, choices by name.
#ifndef VLR_KERNELS_CORE_CONTEXT_H_
#define VLR_KERNELS_CORE_CONTEXT_H_

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "kernels/core/tensor.h"
#include "kernels/core/thread_pool.h"

namespace vlr::cuda {
class Blas;
class WeightRing;
}  // namespace vlr::cuda

struct CUstream_st;  // cudaStream_t is CUstream_st*; declared here so that host code needs no CUDA

namespace vlr {

/// Implementations asked for by name: op -> implementation, as in `--impl linear=reference`.
using ImplChoices = std::map<std::string, std::string, std::less<>>;

struct Context {
  Device device = Device::kCpu;
  ThreadPool* threads = nullptr;     ///< never null when device is kCpu
  CUstream_st* stream = nullptr;     ///< for kCuda
  cuda::Blas* blas = nullptr;        ///< for kCuda: cuBLASLt and the algorithms chosen so far
  cuda::WeightRing* ring = nullptr;  ///< for kCuda: where weights are decoded; may be null
  std::span<std::byte>
      workspace;  ///< scratch, 64-byte aligned; at least what workspace_bytes<Op> said
  const ImplChoices* choices = nullptr;  ///< null: first implementation that supports the arguments
};

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_CONTEXT_H_
