#include "bench/support/gpu.h"

namespace vlr::bench {

std::unique_ptr<Gpu> Gpu::open() { return nullptr; }

}  // namespace vlr::bench
