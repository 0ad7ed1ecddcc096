#include "kernels/cuda/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/core/integer.h"
#include "kernels/core/thread_start.h"
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

void free_device(std::byte* p) { cudaFree(p); }

namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
// From here on registering is worth two system calls and some threads.
constexpr int64_t kRegisterFrom = int64_t{64} << 20;

/// The first number that a line of a file has behind `key`.
std::optional<int64_t> number_in(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    int64_t number = 0;
    if (std::istringstream(line.substr(key.size())) >> number) return number;
  }
  return std::nullopt;
}

/// Whether so much memory can be touched, or the kernel would look for a process to end: what the
/// machine has and, in a container, what its group may have. The runtime's way fails more mildly.
bool has_room_for(int64_t bytes) {
  const auto available = number_in("/proc/meminfo", "MemAvailable:");
  if (!available || bytes > *available * 1024) return false;
  const auto most = number_in("/sys/fs/cgroup/memory.max", "");
  const auto used = number_in("/sys/fs/cgroup/memory.stat", "anon ");
  return !most || bytes <= *most - used.value_or(0);
}

/// Makes the kernel give memory to every page, on all cores.
void touch(std::byte* p, int64_t bytes) {
  const int64_t num_threads = std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, 32);
  const int64_t share = round_up(bytes / num_threads, kHugePage);
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(num_threads));
  const auto touch_from = [p, bytes, share](int64_t begin) {
    constexpr int64_t kPage = 4096;
    for (int64_t i = begin; i < std::min(begin + share, bytes); i += kPage)
      *static_cast<volatile std::byte*>(p + i) = std::byte{0};
  };
  try {
    const BlockSignals inherited;
    for (int64_t begin = share; begin < bytes; begin += share)
      threads.emplace_back(touch_from, begin);
  } catch (const std::exception&) {  // no thread, or no memory for one
    // What nobody has touched, registering will.
  }
  touch_from(0);
  for (std::thread& t : threads) t.join();
}

/// Null where this does not work; the runtime's own way may.
PinnedBlock map_and_register(int64_t bytes) {
  const int64_t size = round_up(bytes, kHugePage);
  if (!has_room_for(size)) return {};
  // Begins at a huge page: what is before it, and left behind it, is given back.
  void* const map = ::mmap(nullptr, static_cast<size_t>(size + kHugePage), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return {};
  auto* const begin = static_cast<std::byte*>(map);
  const auto misfit = static_cast<int64_t>(reinterpret_cast<uintptr_t>(map) % uintptr_t{kHugePage});
  const int64_t before = (kHugePage - misfit) % kHugePage;
  std::byte* const p = begin + before;
  if (before > 0) ::munmap(begin, static_cast<size_t>(before));
  ::munmap(p + size, static_cast<size_t>(kHugePage - before));
  ::madvise(p, static_cast<size_t>(size), MADV_HUGEPAGE);  // small pages are merely slower
  touch(p, size);

  const auto registered = static_cast<size_t>(size);
  void* on_device = nullptr;
  if (cudaHostRegister(p, registered, cudaHostRegisterPortable | cudaHostRegisterMapped) ==
      cudaSuccess) {
    if (cudaHostGetDevicePointer(&on_device, p, 0) == cudaSuccess && on_device == p)
      return {.data = p, .mapped_bytes = size};
    cudaHostUnregister(p);
  }
  cudaGetLastError();  // an answer, not a state
  ::munmap(p, registered);
  return {};
}

}  // namespace

Result<PinnedBlock> allocate_pinned(int64_t bytes) {
  if (bytes >= kRegisterFrom) {
    if (const PinnedBlock block = map_and_register(bytes); block.data) return block;
  }
  void* p = nullptr;
  const cudaError_t error = cudaMallocHost(&p, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    cudaGetLastError();
    return to_status(error, "cudaMallocHost of " + std::to_string(bytes) + " bytes");
  }
  return PinnedBlock{.data = static_cast<std::byte*>(p)};
}

void free_pinned(const PinnedBlock& block) {
  if (block.mapped_bytes == 0) {
    cudaFreeHost(block.data);
    return;
  }
  // Unlike cudaFreeHost, this waits for nobody by its contract.
  cudaDeviceSynchronize();
  cudaHostUnregister(block.data);
  ::munmap(block.data, static_cast<size_t>(block.mapped_bytes));
}

Result<Stream> make_stream() {
  cudaStream_t stream = nullptr;
  VLR_CUDA_TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Result<Event> make_event(bool timing, bool blocking_wait) {
  cudaEvent_t event = nullptr;
  const unsigned flags = (timing ? cudaEventDefault : cudaEventDisableTiming) |
                         (blocking_wait ? cudaEventBlockingSync : cudaEventDefault);
  VLR_CUDA_TRY(cudaEventCreateWithFlags(&event, flags));
  return Event(event);
}

}  // namespace vlr::cuda
