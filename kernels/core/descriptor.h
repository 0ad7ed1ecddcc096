/// A file descriptor that closes itself; negative: none.
#ifndef VLR_KERNELS_CORE_DESCRIPTOR_H_
#define VLR_KERNELS_CORE_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace vlr {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_DESCRIPTOR_H_
