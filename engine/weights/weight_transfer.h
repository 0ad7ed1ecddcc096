/// Brings parts of files to where weights stand: disk, pinned memory and bus work at the same time.
#ifndef VLR_ENGINE_WEIGHTS_WEIGHT_TRANSFER_H_
#define VLR_ENGINE_WEIGHTS_WEIGHT_TRANSFER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/file_reader.h"
#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr {

/// Elements of a file, and where they are to stand, perhaps in another dtype.
struct Transfer {
  std::string_view name;  ///< for messages
  int file = 0;
  int64_t offset = 0, bytes = 0;
  DType stored = DType::kBF16, dtype = DType::kBF16;
  std::byte* to = nullptr;
  bool to_host = false;  ///< `to` is memory of the host
};

/// Done when it returns. What goes to the device is read into a ring of pinned pieces, each of
/// which is copied on when it is complete, while the threads read the others; what goes to the host
/// is read to its place. kInvalidArgument: a value is too large for f16. `on_progress` is called
/// from this thread, several times a second.
Status transfer(const FileReader& files, std::vector<Transfer> transfers, OpenDevice& device,
                const std::function<void()>& on_progress);

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_WEIGHT_TRANSFER_H_
