/// The only place that takes and frees memory of a GPU, and pinned memory of the host.
#ifndef VLR_KERNELS_CUDA_MEMORY_H_
#define VLR_KERNELS_CUDA_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "vlr/status.h"

namespace vlr::cuda {

/// kOutOfMemory when it cannot be had. Free with the function below.
Result<std::byte*> allocate_device(int64_t bytes);
void free_device(std::byte* p);

/// Memory of the host that the device reads and writes at the same address.
struct PinnedBlock {
  std::byte* data = nullptr;
  int64_t mapped_bytes = 0;  ///< 0: from the runtime; otherwise mapped, and registered with it
};
/// Large blocks are mapped in huge pages that many threads touch, then registered: cudaMallocHost
/// takes its pages one by one.
Result<PinnedBlock> allocate_pinned(int64_t bytes);
void free_pinned(const PinnedBlock& block);

/// An owned handle of the runtime, move-only.
template <class T, cudaError_t (*kDestroy)(T)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T value) : value_(value) {}
  Handle(Handle&& o) noexcept : value_(std::exchange(o.value_, nullptr)) {}
  Handle& operator=(Handle&& o) noexcept {
    std::swap(value_, o.value_);
    return *this;
  }
  ~Handle() {
    if (value_) kDestroy(value_);  // a destructor cannot report errors
  }
  T get() const { return value_; }
  explicit operator bool() const { return value_ != nullptr; }

 private:
  T value_ = nullptr;
};

using Stream = Handle<cudaStream_t, cudaStreamDestroy>;
using Event = Handle<cudaEvent_t, cudaEventDestroy>;
using GraphExec = Handle<cudaGraphExec_t, cudaGraphExecDestroy>;
using CapturedGraph = Handle<cudaGraph_t, cudaGraphDestroy>;

Result<Stream> make_stream();  ///< does not wait for the default stream
Result<Event> make_event(bool timing, bool blocking_wait = false);

}  // namespace vlr::cuda

#endif  // VLR_KERNELS_CUDA_MEMORY_H_
