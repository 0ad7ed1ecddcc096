/// Files that are opened to be read whole or mapped: regular ones, and nothing that can be waited for.
#ifndef VLR_KERNELS_CORE_REGULAR_FILE_H_
#define VLR_KERNELS_CORE_REGULAR_FILE_H_

#include <string>

#include "vlr/status.h"

namespace vlr {

/// A descriptor to read a file, which the caller closes; links are followed. `flags` are open()'s.
/// kNotFound if it cannot be opened, kInvalidArgument for a folder, FIFO, socket or device, at once.
Result<int> open_regular(const std::string& path, int flags = 0);

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_REGULAR_FILE_H_
