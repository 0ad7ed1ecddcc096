#ifndef VLR_BENCH_SUPPORT_COMPARE_VALUES_H_
#define VLR_BENCH_SUPPORT_COMPARE_VALUES_H_

#include "kernels/core/op.h"

struct CUstream_st;

namespace vlr::bench {

/// The first element of two contiguous tensors on the device, of one dtype, that are further apart
/// than both may be from a reference; -1: there is none. Of dtypes of 8 bits codes are compared, one
/// step being allowed.
Result<int64_t> first_difference(const Tensor& a, const Tensor& b, const Tolerance& tolerance,
                                 CUstream_st* stream);

/// checksum.h's, of bytes on the device. `sum`: eight bytes there, to add it up in.
Result<uint64_t> checksum_on_device(const std::byte* p, int64_t bytes, std::byte* sum,
                                    CUstream_st* stream);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_COMPARE_VALUES_H_
