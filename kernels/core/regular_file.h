/// Files of others: regular ones where they are read whole or mapped, and nothing that is waited for.
#ifndef VLR_KERNELS_CORE_REGULAR_FILE_H_
#define VLR_KERNELS_CORE_REGULAR_FILE_H_

#include <cstdio>
#include <string>

#include "vlr/status.h"

namespace vlr {

/// A descriptor to read a file, which the caller closes; links are followed. `flags` are open()'s.
/// kNotFound if it cannot be opened, kInvalidArgument for a folder, FIFO, socket or device, at once.
Result<int> open_regular(const std::string& path, int flags = 0);

/// A file to write from its start, made if there is none; links are followed. A FIFO needs a reader
/// within a second.
/// kInvalidArgument says why not. Who fails to write it calls remove_partial().
Result<std::FILE*> open_output(const std::string& path);
/// Removes what was half written, but for what is no file of its own: a link, a device, a FIFO.
void remove_partial(const std::string& path);

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_REGULAR_FILE_H_
