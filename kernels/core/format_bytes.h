/// Counts of bytes as people read them, in messages and tables.
#ifndef VLR_KERNELS_CORE_FORMAT_BYTES_H_
#define VLR_KERNELS_CORE_FORMAT_BYTES_H_

#include <cstdint>
#include <string>

namespace vlr {

/// "812 bytes", "1.50 GiB": two decimals, rounded to the nearest.
std::string format_bytes(int64_t bytes);

/// The same, rounded up: for a size that somebody is told to ask for.
std::string format_bytes_up(int64_t bytes);

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_FORMAT_BYTES_H_
