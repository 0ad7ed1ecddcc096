/// Weights that are a function of their place, made on the device: no file, no copy.
#ifndef VLR_KERNELS_CUDA_SYNTHETIC_FILL_H_
#define VLR_KERNELS_CUDA_SYNTHETIC_FILL_H_

#include <cstdint>
#include <span>

#include "vlr/status.h"

struct CUstream_st;

namespace vlr::cuda {

constexpr int kMaxSyntheticValues = 128;

/// out[i] = values[splitmix64(base + i) >> shift] for i in [0, count).
///
///   out     [count]  any 16-bit dtype, in the device's memory
///   values           2^(64 - shift) of them, in host memory; shift in [57, 64)
///
/// In stream order. model/synthetic.h says which numbers make a named tensor.
Status fill_synthetic(uint16_t* out, int64_t count, uint64_t base, int shift,
                      std::span<const uint16_t> values, CUstream_st* stream);

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_SYNTHETIC_FILL_H_
