/// The guard of the public C++ entry points: what the host has no memory or no thread for is a
/// Status. What a callback of the caller's throws comes out as it is.
#ifndef VLR_ENGINE_API_GUARD_H_
#define VLR_ENGINE_API_GUARD_H_

#include <new>
#include <string>
#include <system_error>

#include "vlr/status.h"

namespace vlr {

/// Runs `body`, which returns a Status or a Result.
template <class F>
auto guarded(F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
  } catch (const std::system_error& e) {
    if (e.code() != std::errc::resource_unavailable_try_again &&
        e.code() != std::errc::not_enough_memory)
      throw;
    return Status(Code::kOutOfMemory, "a thread of the host: " + e.code().message());
  }
  return Status(Code::kOutOfMemory, "host memory");  // short: needs no memory of its own
}

}  // namespace vlr

#endif  // VLR_ENGINE_API_GUARD_H_
