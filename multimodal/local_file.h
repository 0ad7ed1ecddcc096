/// Files of this machine, below a folder if need be.
#ifndef VLR_MULTIMODAL_LOCAL_FILE_H_
#define VLR_MULTIMODAL_LOCAL_FILE_H_

#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/descriptor.h"
#include "vlr/status.h"

namespace vlr::media {

/// A pipe without a writer does not make open() wait, and a terminal does not become the process's.
constexpr int kReadOnly = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

/// "NAME: is a folder, expected a file", or what else it is.
std::string not_a_file(std::string_view name, std::filesystem::file_status status);

/// All of an open regular file; messages call it `name`.
Result<std::vector<std::byte>> read_open_file(int fd, std::string_view name, int64_t max_bytes);

/// The file at `path`, relative to the folder `root` or absolute and below it. Symbolic links are
/// followed as long as they stay below `root`, whatever other processes do meanwhile.
/// kInvalidArgument: it is not below; what lies elsewhere, or whether anything does, is not looked
/// at. Otherwise as read_file().
Result<std::vector<std::byte>> read_file_below(const std::filesystem::path& root,
                                               std::string_view path, int64_t max_bytes);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_LOCAL_FILE_H_
