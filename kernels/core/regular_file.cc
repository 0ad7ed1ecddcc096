#include "kernels/core/regular_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

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

Result<std::FILE*> open_output(const std::string& path) {
  const auto failed = [&] {
    const std::string why = errno == ENXIO ? "nothing reads the other end of this FIFO"
                                           : std::generic_category().message(errno);
    return Status(Code::kInvalidArgument, path + ": cannot write: " + why);
  };
  constexpr mode_t kReadable = 0666;
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  int fd = ::open(path.c_str(), kFlags, kReadable);
  // Who reads may have been started beside us.
  for (int tries = 0; fd < 0 && errno == ENXIO && tries < 100; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    fd = ::open(path.c_str(), kFlags, kReadable);
  }
  if (fd < 0) return failed();
  // Only opening must not wait.
  std::FILE* file = ::fcntl(fd, F_SETFL, 0) == 0 ? ::fdopen(fd, "wb") : nullptr;
  if (file) return file;
  const Status status = failed();
  ::close(fd);
  return status;
}

void remove_partial(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode)) ::unlink(path.c_str());
}

}  // namespace vlr
