#include "kernels/cuda/memory.h"

#include "kernels/cuda/check.h"

namespace vlr::cuda {

Result<std::byte*> allocate_device(int64_t bytes) {
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    cudaGetLastError();  // a failed allocation is an answer, not a state
    return to_status(error, "cudaMalloc of " + std::to_string(bytes) + " bytes");
  }
  return static_cast<std::byte*>(p);
}

Result<std::byte*> allocate_pinned(int64_t bytes) {
  void* p = nullptr;
  const cudaError_t error = cudaMallocHost(&p, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    cudaGetLastError();
    return to_status(error, "cudaMallocHost of " + std::to_string(bytes) + " bytes");
  }
  return static_cast<std::byte*>(p);
}

void free_device(std::byte* p) { cudaFree(p); }
void free_pinned(std::byte* p) { cudaFreeHost(p); }

Result<Stream> make_stream() {
  cudaStream_t stream = nullptr;
  VLR_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Result<Event> make_event(bool timing) {
  cudaEvent_t event = nullptr;
  VLR_CUDA_TRY(
      cudaEventCreateWithFlags(&event, timing ? cudaEventDefault : cudaEventDisableTiming));
  return Event(event);
}

}  // namespace vlr::cuda
