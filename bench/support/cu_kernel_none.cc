#include "bench/support/cu_kernel.h"

namespace vlr::bench {

Result<std::shared_ptr<CuKernel>> CuKernel::load(const std::string& path) {
  return Status(Code::kUnimplemented, path + ": this build is without CUDA");
}

}  // namespace vlr::bench
