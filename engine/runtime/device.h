/// A device as the engine sees it: memory by purpose under a cap, copies, waiting, captured graphs.
/// The CPU does everything at once, a GPU in the order of one stream. The only engine code that
/// knows CUDA's runtime.
#ifndef VLR_ENGINE_RUNTIME_DEVICE_H_
#define VLR_ENGINE_RUNTIME_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/context.h"
#include "vlr/status.h"

namespace vlr {

/// "cpu", "cuda", "cuda:1", or "auto": the first GPU if there is one that this build can use.
struct DeviceSpec {
  Device kind = Device::kCpu;
  int index = 0;
  static Result<DeviceSpec> parse(std::string_view text);
  /// The same, but a GPU need not be there.
  static Result<DeviceSpec> parse_for_planning(std::string_view text);
};

/// Bytes that are taken, by purpose. Everything that the engine puts on a device is counted here,
/// and nothing is taken beyond the cap. Any thread.
class MemoryBudget {
 public:
  using Parts = std::map<std::string, int64_t, std::less<>>;
  using OnChange = std::function<void(std::string_view purpose)>;

  /// A cap of 0: what the device has. `memory` names it in messages.
  explicit MemoryBudget(int64_t cap = 0, std::string_view memory = "device memory")
      : memory_(memory), cap_(cap) {}

  /// kOutOfMemory says what was wanted, the cap, and the largest parts so far.
  Status take(std::string_view purpose, int64_t bytes);
  void give(std::string_view purpose, int64_t bytes);
  /// The message of an allocation that failed although the cap allows it.
  Status exhausted(std::string_view purpose, int64_t bytes, std::string_view why) const;

  int64_t cap() const;
  void set_cap(int64_t cap);
  int64_t used() const;
  int64_t peak() const;  ///< largest used() since reset_peak()
  void reset_peak();
  Parts parts() const;
  int64_t bytes(std::string_view purpose) const;  ///< of one part

  /// Called after every change, in the thread that makes it, which may read all of this; null:
  /// nobody is told. Set while no other thread is at work; must not throw.
  void on_change(OnChange f) { on_change_ = std::move(f); }

 private:
  Status refusal(std::string_view purpose, int64_t bytes, std::string_view why) const;

  const std::string memory_;
  OnChange on_change_;
  mutable std::mutex mutex_;  // of what follows
  int64_t cap_ = 0, used_ = 0, peak_ = 0;
  Parts parts_;
};

/// Memory that only grows; owns it, move-only. Contents are lost when it grows.
class Buffer {
 public:
  enum class Place : uint8_t { kHost, kPinned, kDevice, kNowhere };  ///< the last: only counted

  Buffer() = default;  ///< on the host, not counted
  Buffer(Place place, MemoryBudget* budget, std::string purpose)
      : place_(place), budget_(budget), purpose_(std::move(purpose)) {}
  Buffer(Buffer&& o) noexcept { *this = std::move(o); }
  Buffer& operator=(Buffer&& o) noexcept;
  ~Buffer() { release(); }

  /// At least `bytes` from now on. kOutOfMemory says how many and for what.
  Status reserve(int64_t bytes);
  void release();
  std::span<std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  int64_t mapped_bytes_ = 0;  // cuda::PinnedBlock's
  Place place_ = Place::kHost;
  MemoryBudget* budget_ = nullptr;
  std::string purpose_;
};

/// A device that is open: its stream, its libraries, its memory. One thread at a time.
class OpenDevice {
 public:
  /// `exact`: only library algorithms that give a row the same bits whatever the batch.
  static Result<std::unique_ptr<OpenDevice>> open(DeviceSpec spec, bool exact, ThreadPool& threads,
                                                  const ImplChoices& choices);
  /// Enough of a device to plan for it, which needs none: memory is counted and not there, what
  /// would be copied or run is not.
  static Result<std::unique_ptr<OpenDevice>> for_planning(DeviceSpec spec, ThreadPool& threads,
                                                          const ImplChoices& choices);
  ~OpenDevice();

  const DeviceSpec& spec() const { return spec_; }
  Device kind() const { return spec_.kind; }
  bool is_gpu() const { return spec_.kind == Device::kCuda; }
  std::string name() const;  ///< "cpu", "cuda:0 (NVIDIA H200)"
  Context& context() { return context_; }
  MemoryBudget& budget() { return budget_; }
  const MemoryBudget& budget() const { return budget_; }
  /// Of host memory beside it: pinned for a GPU.
  MemoryBudget& host_budget() { return host_budget_; }
  const MemoryBudget& host_budget() const { return host_budget_; }

  /// What a pass works in: the device's memory, counted.
  Buffer memory(std::string_view purpose);
  /// Host memory that copies to and from the device read and write, counted: pinned for a GPU.
  Buffer staging(std::string_view purpose);
  /// Host memory that only the host reads and writes, counted as staging is.
  Buffer host_memory(std::string_view purpose);

  /// On a GPU: two places of `place_bytes` each in which weights are decoded. Passes are planned
  /// with them from now on; returns the bytes that they will take.
  int64_t plan_ring(int64_t place_bytes);
  /// Takes the memory.
  Status reserve_ring();

  /// Makes the device the calling thread's. Every entry from another thread starts with it.
  Status activate();
  /// In stream order. For a GPU, host memory has to stay as it is until the copy was waited for.
  Status copy(void* to, const void* from, int64_t bytes);
  Status fill(void* to, int value, int64_t bytes);
  /// Between a buffer of staging() and other memory of the host, at once.
  void copy_on_host(void* to, const void* from, int64_t bytes) const {
    if (bytes > 0 && !only_plans()) std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  Status synchronize();
  /// Calls body(), which computes on this device or on the host beside it. A device that only plans
  /// leaves it out.
  template <class Body>
  Status compute(Body&& body) const {
    return only_plans() ? Status() : body();
  }

  /// A point in the stream that the host can wait for.
  class Mark {
   public:
    Mark();
    Mark(Mark&&) noexcept;
    Mark& operator=(Mark&&) noexcept;
    ~Mark();

   private:
    friend class OpenDevice;
    struct State;
    std::unique_ptr<State> state_;
  };
  Result<Mark> mark(bool timing = false);
  Status wait(const Mark& mark);

  /// Copies beside the stream, in an order of their own: how weights come in while others are
  /// computed with. `after` is what has to be done before; the result, for compute_after(), is when
  /// the copy is. On the CPU at once.
  /// Given `begun`, it is when the copy starts, and both are timing marks.
  Result<Mark> copy_beside(void* to, const void* from, int64_t bytes, const Mark& after,
                           Mark* begun = nullptr);
  /// Waits for all of them.
  Status finish_copies();
  /// What is launched from now on waits for `mark`.
  Status compute_after(const Mark& mark);
  /// Seconds between two timing marks that have been waited for.
  Result<double> seconds_between(const Mark& from, const Mark& to);

  /// What `body` launches, recorded instead of run. GPU only.
  class Recording {
   public:
    Recording();
    Recording(Recording&&) noexcept;
    Recording& operator=(Recording&&) noexcept;
    ~Recording();
    explicit operator bool() const { return state_ != nullptr; }

   private:
    friend class OpenDevice;
    struct State;
    std::unique_ptr<State> state_;
  };
  template <class Body>
  Result<Recording> record(Body&& body) {
    VLR_RETURN_IF_ERROR(begin_recording());
    const Status status = body();
    return end_recording(status);
  }
  Status launch(const Recording& recording);
  bool can_record() const { return gpu_ != nullptr; }

  /// Bytes of the whole card: free, total. kUnimplemented on the CPU.
  struct CardMemory {
    int64_t free = 0, total = 0;
  };
  Result<CardMemory> card_memory() const;

 private:
  OpenDevice() = default;
  bool only_plans() const { return is_gpu() && !gpu_; }
  Status begin_recording();
  Result<Recording> end_recording(const Status& status);

  DeviceSpec spec_;
  std::string card_;
  MemoryBudget budget_, host_budget_{0, "host memory"};
  Context context_;
  struct Gpu;
  std::unique_ptr<Gpu> gpu_;  ///< null on the CPU, and for planning
  struct Ring;
  std::unique_ptr<Ring> ring_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_RUNTIME_DEVICE_H_
