#include "kernels/core/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace vlr {

Result<int> open_regular(const std::string& path, int flags) {
  const auto failed = [&](Code code) {
    return Status(code, path + ": " + std::generic_category().message(errno));
  };
  // A FIFO without a writer is not waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
  if (fd < 0) return failed(Code::kNotFound);
  struct stat info {};
  Status status;
  if (::fstat(fd, &info) != 0) {
    status = failed(Code::kDataLoss);
  } else if (!S_ISREG(info.st_mode)) {
    status = {Code::kInvalidArgument, path + ": not a regular file"};
  }
  if (status.ok()) return fd;
  ::close(fd);
  return status;
}

}  // namespace vlr
