/// Functions of the CUDA driver, found through the runtime: nothing links libcuda.
#ifndef VLR_BENCH_SUPPORT_DRIVER_H_
#define VLR_BENCH_SUPPORT_DRIVER_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <string>

#include "vlr/status.h"

namespace vlr::bench {

/// driver<decltype(&cuFuncGetName)>("cuFuncGetName"); null where the driver has none.
template <class Function>
Function driver(const char* name) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  const auto error =
      cudaGetDriverEntryPointByVersion(name, &entry, 12030, cudaEnableDefault, &found);
#else
  const auto error = cudaGetDriverEntryPoint(name, &entry, cudaEnableDefault, &found);
#endif
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) entry = nullptr;
  return reinterpret_cast<Function>(entry);
}

/// Calls a function of the driver; an error with its name, also where the driver has none.
#define VLR_DRIVER_TRY(function, ...)                                                 \
  do {                                                                                \
    static const auto entry = ::vlr::bench::driver<decltype(&(function))>(#function); \
    const CUresult result = entry ? entry(__VA_ARGS__) : CUDA_ERROR_NOT_FOUND;        \
    if (result != CUDA_SUCCESS) return ::vlr::bench::driver_error(result, #function); \
  } while (false)

inline Status driver_error(CUresult result, const char* what) {
  return {Code::kDevice, std::string(what) + ": CUDA driver error " + std::to_string(result)};
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_DRIVER_H_
