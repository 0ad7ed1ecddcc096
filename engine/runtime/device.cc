#include "engine/runtime/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "engine/runtime/arena.h"
#include "engine/runtime/purposes.h"
#include "kernels/core/format_bytes.h"

#if VLR_WITH_CUDA
#include <cuda_runtime_api.h>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/weight_ring.h"
#endif

namespace vlr {
namespace {

#if VLR_WITH_CUDA
int count_gpus() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
#else
int count_gpus() { return 0; }
#endif

}  // namespace

Result<DeviceSpec> DeviceSpec::parse(std::string_view text) {
  if (text == "cpu") return DeviceSpec{};
  if (text == "auto")
    return DeviceSpec{.kind = count_gpus() > 0 ? Device::kCuda : Device::kCpu, .index = 0};
  DeviceSpec spec{.kind = Device::kCuda, .index = 0};
  bool ok = text == "cuda";
  if (text.starts_with("cuda:")) {
    const std::string_view number = text.substr(5);
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), spec.index);
    ok = error == std::errc() && end == number.data() + number.size() && spec.index >= 0;
  }
  if (!ok) {
    return {Code::kInvalidArgument,
            fmt::format("device must be auto, cpu, cuda or cuda:N, got '{}'", text)};
  }
#if VLR_WITH_CUDA
  if (spec.index >= count_gpus()) {
    return {Code::kDevice,
            fmt::format("device {}: the CUDA runtime sees {} GPUs", text, count_gpus())};
  }
  return spec;
#else
  return {Code::kUnimplemented, fmt::format("device {}: this build has no CUDA backend", text)};
#endif
}

Result<DeviceSpec> DeviceSpec::parse_for_planning(std::string_view text) {
#if VLR_WITH_CUDA
  if (text.starts_with("cuda")) return DeviceSpec{.kind = Device::kCuda, .index = 0};
#endif
  return parse(text);
}

Status MemoryBudget::refusal(std::string_view purpose, int64_t bytes, std::string_view why) const {
  std::vector<std::pair<int64_t, std::string>> largest;
  for (const auto& [name, size] : parts_) largest.emplace_back(size, name);
  std::sort(largest.rbegin(), largest.rend());
  std::string list;
  for (size_t i = 0; i < std::min<size_t>(largest.size(), 4); ++i) {
    list +=
        fmt::format("{}{} {}", i ? ", " : "", largest[i].second, format_bytes(largest[i].first));
  }
  return {Code::kOutOfMemory, fmt::format("{}: {} wants {}, {}; in use are {}{}{}", memory_,
                                          purpose, format_bytes(bytes), why, format_bytes(used_),
                                          list.empty() ? "" : ": ", list)};
}

Status MemoryBudget::exhausted(std::string_view purpose, int64_t bytes,
                               std::string_view why) const {
  const std::lock_guard lock(mutex_);
  return refusal(purpose, bytes, why);
}

Status MemoryBudget::take(std::string_view purpose, int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (cap_ > 0 && used_ + bytes > cap_)
      return refusal(purpose, bytes, fmt::format("the cap is {}", format_bytes(cap_)));
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    auto it = parts_.find(purpose);
    if (it == parts_.end()) it = parts_.emplace(std::string(purpose), 0).first;
    it->second += bytes;
  }
  if (on_change_) on_change_(purpose);
  return {};
}

void MemoryBudget::give(std::string_view purpose, int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    used_ -= bytes;
    if (const auto it = parts_.find(purpose); it != parts_.end()) it->second -= bytes;
  }
  if (on_change_) on_change_(purpose);
}

int64_t MemoryBudget::cap() const {
  const std::lock_guard lock(mutex_);
  return cap_;
}

void MemoryBudget::set_cap(int64_t cap) {
  const std::lock_guard lock(mutex_);
  cap_ = cap;
}

int64_t MemoryBudget::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

int64_t MemoryBudget::peak() const {
  const std::lock_guard lock(mutex_);
  return peak_;
}

void MemoryBudget::reset_peak() {
  const std::lock_guard lock(mutex_);
  peak_ = used_;
}

MemoryBudget::Parts MemoryBudget::parts() const {
  const std::lock_guard lock(mutex_);
  return parts_;
}

int64_t MemoryBudget::bytes(std::string_view purpose) const {
  const std::lock_guard lock(mutex_);
  const auto it = parts_.find(purpose);
  return it == parts_.end() ? 0 : it->second;
}

Buffer& Buffer::operator=(Buffer&& o) noexcept {
  if (this == &o) return *this;
  release();
  data_ = std::exchange(o.data_, nullptr);
  size_ = std::exchange(o.size_, 0);
  mapped_bytes_ = std::exchange(o.mapped_bytes_, 0);
  place_ = o.place_;
  budget_ = o.budget_;
  purpose_ = o.purpose_;
  return *this;
}

void Buffer::release() {
  if (size_ == 0) return;
  switch (place_) {
    case Place::kHost:
      std::free(data_);
      break;
    case Place::kNowhere:
      break;
#if VLR_WITH_CUDA
    case Place::kPinned:
      cuda::free_pinned({.data = data_, .mapped_bytes = mapped_bytes_});
      break;
    case Place::kDevice:
      cuda::free_device(data_);
      break;
#else
    default:
      break;
#endif
  }
  if (budget_) budget_->give(purpose_, size_);
  data_ = nullptr;
  size_ = 0;
}

Status Buffer::reserve(int64_t bytes) {
  if (bytes <= size_) return {};
  release();
  const int64_t rounded = arena_aligned(bytes);
  if (budget_) VLR_RETURN_IF_ERROR(budget_->take(purpose_, rounded));
  if (place_ == Place::kNowhere) {
    size_ = rounded;
    return {};
  }
#if VLR_WITH_CUDA
  if (place_ != Place::kHost) {
    Status status;
    if (place_ == Place::kPinned) {
      if (auto block = cuda::allocate_pinned(rounded)) {
        data_ = block->data;
        mapped_bytes_ = block->mapped_bytes;
      } else {
        status = block.error();
      }
    } else if (auto memory = cuda::allocate_device(rounded)) {
      data_ = *memory;
    } else {
      status = memory.error();
    }
    if (!status.ok()) {
      if (!budget_) return status;
      budget_->give(purpose_, rounded);
      return budget_->exhausted(
          purpose_, rounded,
          place_ == Place::kPinned ? "no more can be pinned" : "the device has no more");
    }
    size_ = rounded;
    return {};
  }
#endif
  data_ =
      static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, static_cast<size_t>(rounded)));
  if (!data_) {
    if (budget_) budget_->give(purpose_, rounded);
    return {Code::kOutOfMemory,
            fmt::format("host memory: {} could not be had{}{}", format_bytes(rounded),
                        purpose_.empty() ? "" : " for ", purpose_)};
  }
  size_ = rounded;
  return {};
}

#if VLR_WITH_CUDA
struct OpenDevice::Gpu {
  cuda::Stream stream, copies;
  std::unique_ptr<cuda::Blas> blas;
};
struct OpenDevice::Ring {
  Buffer memory;
  int64_t bytes = 0;
  std::unique_ptr<cuda::WeightRing> ring;
};
struct OpenDevice::Mark::State {
  cuda::Event event;
  std::chrono::steady_clock::time_point time;
};
struct OpenDevice::Recording::State {
  cuda::GraphExec exec;
};
#else
struct OpenDevice::Gpu {};
struct OpenDevice::Ring {};
struct OpenDevice::Mark::State {
  std::chrono::steady_clock::time_point time;
};
struct OpenDevice::Recording::State {};
#endif

OpenDevice::Mark::Mark() = default;
OpenDevice::Mark::Mark(Mark&&) noexcept = default;
OpenDevice::Mark& OpenDevice::Mark::operator=(Mark&&) noexcept = default;
OpenDevice::Mark::~Mark() = default;
OpenDevice::Recording::Recording() = default;
OpenDevice::Recording::Recording(Recording&&) noexcept = default;
OpenDevice::Recording& OpenDevice::Recording::operator=(Recording&&) noexcept = default;
OpenDevice::Recording::~Recording() = default;
OpenDevice::~OpenDevice() = default;

Result<std::unique_ptr<OpenDevice>> OpenDevice::open(DeviceSpec spec, bool exact,
                                                     ThreadPool& threads,
                                                     const ImplChoices& choices) {
  std::unique_ptr<OpenDevice> d(new OpenDevice);
  d->spec_ = spec;
  d->context_.device = spec.kind;
  d->context_.threads = &threads;
  d->context_.choices = &choices;
  if (spec.kind == Device::kCpu) return d;
#if VLR_WITH_CUDA
  VLR_RETURN_IF_ERROR(d->activate());
  cudaDeviceProp properties;
  VLR_CUDA_TRY(cudaGetDeviceProperties(&properties, spec.index));
  d->card_ = properties.name;
  if (properties.major < 8) {
    return {Code::kUnimplemented,
            fmt::format("{}: compute capability 8.0 or higher is needed, got {}.{}",
                        properties.name, properties.major, properties.minor)};
  }
  VLR_RETURN_IF_ERROR(cuda::check_architecture());
  d->gpu_ = std::make_unique<Gpu>();
  VLR_ASSIGN_OR_RETURN(d->gpu_->stream, cuda::make_stream());
  VLR_ASSIGN_OR_RETURN(d->gpu_->copies, cuda::make_stream());
  VLR_ASSIGN_OR_RETURN(d->gpu_->blas, cuda::Blas::create(exact));
  d->context_.stream = d->gpu_->stream.get();
  d->context_.blas = d->gpu_->blas.get();
#else
  (void)exact;
#endif
  return d;
}

Result<std::unique_ptr<OpenDevice>> OpenDevice::for_planning(DeviceSpec spec, ThreadPool& threads,
                                                             const ImplChoices& choices) {
  std::unique_ptr<OpenDevice> d(new OpenDevice);
  d->spec_ = spec;
  d->context_.device = spec.kind;
  d->context_.threads = &threads;
  d->context_.choices = &choices;
  return d;
}

std::string OpenDevice::name() const {
  return is_gpu() ? fmt::format("cuda:{} ({})", spec_.index, card_) : "cpu";
}

Buffer OpenDevice::memory(std::string_view purpose) {
  return Buffer(only_plans() ? Buffer::Place::kNowhere
                : is_gpu()   ? Buffer::Place::kDevice
                             : Buffer::Place::kHost,
                &budget_, std::string(purpose));
}

Buffer OpenDevice::staging(std::string_view purpose) {
  return Buffer(only_plans() ? Buffer::Place::kNowhere
                : is_gpu()   ? Buffer::Place::kPinned
                             : Buffer::Place::kHost,
                &host_budget_, std::string(purpose));
}

Buffer OpenDevice::host_memory(std::string_view purpose) {
  return Buffer(only_plans() ? Buffer::Place::kNowhere : Buffer::Place::kHost, &host_budget(),
                std::string(purpose));
}

#if VLR_WITH_CUDA

int64_t OpenDevice::plan_ring(int64_t place_bytes) {
  ring_.reset();
  context_.ring = nullptr;
  if (!is_gpu() || place_bytes == 0) return 0;
  ring_ = std::make_unique<Ring>();
  ring_->memory = memory(purposes::kDecodedWeights);
  ring_->bytes = 2 * arena_aligned(place_bytes);
  ring_->ring = cuda::WeightRing::for_planning(ring_->bytes / 2);
  context_.ring = ring_->ring.get();
  return ring_->bytes;
}

Status OpenDevice::reserve_ring() {
  if (!ring_) return {};
  VLR_RETURN_IF_ERROR(ring_->memory.reserve(ring_->bytes));
  if (only_plans()) return {};
  VLR_ASSIGN_OR_RETURN(ring_->ring, cuda::WeightRing::create());
  ring_->ring->place(ring_->memory.bytes());
  context_.ring = ring_->ring.get();
  return {};
}

Status OpenDevice::activate() {
  if (!is_gpu() || only_plans()) return {};
  return cuda::to_status(cudaSetDevice(spec_.index), "cudaSetDevice");
}

Status OpenDevice::copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0 || only_plans()) return {};
  if (!is_gpu()) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return {};
  }
  return cuda::to_status(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, context_.stream),
      "cudaMemcpyAsync");
}

Status OpenDevice::fill(void* to, int value, int64_t bytes) {
  if (bytes == 0 || only_plans()) return {};
  if (!is_gpu()) {
    std::memset(to, value, static_cast<size_t>(bytes));
    return {};
  }
  return cuda::to_status(cudaMemsetAsync(to, value, static_cast<size_t>(bytes), context_.stream),
                         "cudaMemsetAsync");
}

Status OpenDevice::synchronize() {
  if (!is_gpu() || only_plans()) return {};
  return cuda::to_status(cudaStreamSynchronize(context_.stream), "cudaStreamSynchronize");
}

Result<OpenDevice::Mark> OpenDevice::mark(bool timing) {
  Mark m;
  m.state_ = std::make_unique<Mark::State>();
  m.state_->time = std::chrono::steady_clock::now();
  if (!is_gpu() || only_plans()) return m;
  VLR_ASSIGN_OR_RETURN(m.state_->event, cuda::make_event(timing));
  VLR_CUDA_TRY(cudaEventRecord(m.state_->event.get(), context_.stream));
  return m;
}

Status OpenDevice::wait(const Mark& mark) {
  if (!is_gpu() || only_plans() || !mark.state_) return {};
  return cuda::to_status(cudaEventSynchronize(mark.state_->event.get()), "cudaEventSynchronize");
}

Result<OpenDevice::Mark> OpenDevice::copy_beside(void* to, const void* from, int64_t bytes,
                                                 const Mark& after, Mark* begun) {
  if (begun) {
    begun->state_ = std::make_unique<Mark::State>();
    begun->state_->time = std::chrono::steady_clock::now();
  }
  if (only_plans()) return mark();
  if (!is_gpu()) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    return mark();
  }
  CUstream_st* const stream = gpu_->copies.get();
  if (after.state_) VLR_CUDA_TRY(cudaStreamWaitEvent(stream, after.state_->event.get(), 0));
  if (begun) {
    VLR_ASSIGN_OR_RETURN(begun->state_->event, cuda::make_event(true));
    VLR_CUDA_TRY(cudaEventRecord(begun->state_->event.get(), stream));
  }
  VLR_CUDA_TRY(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream));
  Mark m;
  m.state_ = std::make_unique<Mark::State>();
  // Who waits for it may wait for long, and must not take a core for that.
  VLR_ASSIGN_OR_RETURN(m.state_->event, cuda::make_event(begun != nullptr, true));
  VLR_CUDA_TRY(cudaEventRecord(m.state_->event.get(), stream));
  return m;
}

Status OpenDevice::finish_copies() {
  if (!is_gpu() || only_plans()) return {};
  return cuda::to_status(cudaStreamSynchronize(gpu_->copies.get()), "cudaStreamSynchronize");
}

Status OpenDevice::compute_after(const Mark& mark) {
  if (!is_gpu() || only_plans() || !mark.state_) return {};
  VLR_CUDA_TRY(cudaStreamWaitEvent(context_.stream, mark.state_->event.get(), 0));
  return context_.ring ? context_.ring->wait_for(mark.state_->event.get()) : Status();
}

Result<double> OpenDevice::seconds_between(const Mark& from, const Mark& to) {
  if (!is_gpu() || only_plans()) {
    return std::chrono::duration<double>(to.state_->time - from.state_->time).count();
  }
  float ms = 0;
  VLR_CUDA_TRY(cudaEventElapsedTime(&ms, from.state_->event.get(), to.state_->event.get()));
  return static_cast<double>(ms) * 1e-3;
}

Status OpenDevice::begin_recording() {
  return cuda::to_status(cudaStreamBeginCapture(context_.stream, cudaStreamCaptureModeThreadLocal),
                         "cudaStreamBeginCapture");
}

Result<OpenDevice::Recording> OpenDevice::end_recording(const Status& status) {
  cudaGraph_t graph = nullptr;
  const cudaError_t error = cudaStreamEndCapture(context_.stream, &graph);
  const cuda::CapturedGraph owned(graph);
  VLR_RETURN_IF_ERROR(status);
  VLR_RETURN_IF_ERROR(cuda::to_status(error, "cudaStreamEndCapture"));
  cudaGraphExec_t exec = nullptr;
  VLR_CUDA_TRY(cudaGraphInstantiate(&exec, graph, 0));
  Recording r;
  r.state_ = std::make_unique<Recording::State>();
  r.state_->exec = cuda::GraphExec(exec);
  return r;
}

Status OpenDevice::launch(const Recording& recording) {
  VLR_CUDA_TRY(cudaGraphLaunch(recording.state_->exec.get(), context_.stream));
  return context_.ring ? context_.ring->launched(context_.stream) : Status();
}

Result<OpenDevice::CardMemory> OpenDevice::card_memory() const {
  if (!is_gpu() || only_plans()) return {Code::kUnimplemented, "there is no card to ask"};
  size_t free = 0, total = 0;
  VLR_CUDA_TRY(cudaMemGetInfo(&free, &total));
  return CardMemory{.free = static_cast<int64_t>(free), .total = static_cast<int64_t>(total)};
}

#else

int64_t OpenDevice::plan_ring(int64_t) { return 0; }
Status OpenDevice::reserve_ring() { return {}; }
Status OpenDevice::activate() { return {}; }
Status OpenDevice::copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  return {};
}
Status OpenDevice::fill(void* to, int value, int64_t bytes) {
  if (bytes > 0) std::memset(to, value, static_cast<size_t>(bytes));
  return {};
}
Status OpenDevice::synchronize() { return {}; }
Result<OpenDevice::Mark> OpenDevice::mark(bool) {
  Mark m;
  m.state_ = std::make_unique<Mark::State>();
  m.state_->time = std::chrono::steady_clock::now();
  return m;
}
Status OpenDevice::wait(const Mark&) { return {}; }
Result<OpenDevice::Mark> OpenDevice::copy_beside(void* to, const void* from, int64_t bytes,
                                                 const Mark&, Mark* begun) {
  if (begun) {
    VLR_ASSIGN_OR_RETURN(*begun, mark());
  }
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return mark();
}
Status OpenDevice::finish_copies() { return {}; }
Status OpenDevice::compute_after(const Mark&) { return {}; }
Result<double> OpenDevice::seconds_between(const Mark& from, const Mark& to) {
  return std::chrono::duration<double>(to.state_->time - from.state_->time).count();
}
Status OpenDevice::begin_recording() { return {Code::kUnimplemented, "the CPU records nothing"}; }
Result<OpenDevice::Recording> OpenDevice::end_recording(const Status& status) {
  VLR_RETURN_IF_ERROR(status);
  return Recording();
}
Status OpenDevice::launch(const Recording&) {
  return {Code::kUnimplemented, "the CPU records nothing"};
}
Result<OpenDevice::CardMemory> OpenDevice::card_memory() const {
  return {Code::kUnimplemented, "the CPU has no card memory"};
}

#endif

}  // namespace vlr
