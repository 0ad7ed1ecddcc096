/// The clock that everything is timed with.
#ifndef VLR_KERNELS_CORE_CLOCK_H_
#define VLR_KERNELS_CORE_CLOCK_H_

#include <chrono>

namespace vlr {

/// Seconds of a clock that never goes back, from a start that means nothing: only differences count.
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace vlr

#endif  // VLR_KERNELS_CORE_CLOCK_H_
