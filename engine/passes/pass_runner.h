/// What the passes of a model share: the device, the memory that they work in, who watches them.
#ifndef VLR_ENGINE_PASSES_PASS_RUNNER_H_
#define VLR_ENGINE_PASSES_PASS_RUNNER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/runtime/device.h"
#include "engine/runtime/executor.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

struct Observers {
  ValueObserver on_value;
  std::function<bool(std::string_view)> wants_value;
  std::function<void(const NodeTiming&)> on_node;
  std::function<void(const CopyTiming&)> on_copy = {};
};

/// Memory of one pass, its inputs apart.
struct PassPlan {
  RunPlan run;                   ///< of the device's section that takes most
  const Graph* graph = nullptr;  ///< that section's
  int64_t carried_bytes = 0;     ///< between sections, on the device
  int64_t host_bytes = 0;        ///< what sections of the host work in
  int64_t pinned_bytes = 0;      ///< through which values are carried
  int64_t total() const { return run.total() + carried_bytes; }
};

/// One thread at a time.
class PassRunner {
 public:
  /// device must outlive it.
  static Result<std::unique_ptr<PassRunner>> create(OpenDevice& device, Observers observers);

  OpenDevice& device() { return device_; }
  OpenDevice& host() { return *host_; }  ///< the CPU as the host's layers see it

  /// From the next run on. While nodes or values are observed, nothing is recorded or replayed.
  void set_observers(Observers observers) { observers_ = std::move(observers); }
  const Observers& observers() const { return observers_; }
  bool observed() const { return observers_.on_node || observers_.on_value; }

  /// Plans, makes room and runs. `kind` is the pass, in what observers know the run by.
  Status run(const Executor& executor, RunArgs& args, std::string_view kind);
  Status run_planned(const Executor& executor, RunArgs& args, const RunPlan& plan,
                     std::span<std::byte> memory, Context& ctx, const std::string& name);
  std::string next_name(std::string_view kind);

  Buffer arena, host_arena;
  Buffer carrier;         ///< pinned: through which values go between device and host
  int64_t row_chunk = 0;  ///< RunArgs::row_chunk of every pass that runs or is planned

 private:
  PassRunner(OpenDevice& device, Observers observers);
  Status observe(std::string_view name, const ConstTensor& t) const;

  OpenDevice& device_;
  std::unique_ptr<OpenDevice> host_;
  Observers observers_;
  std::map<std::string, int64_t, std::less<>> runs_;  // how many of each kind
};

/// Other observers for the runs of a scope; those from before come back at its end.
class ObserverScope {
 public:
  ObserverScope(PassRunner& runner, Observers observers)
      : runner_(runner), before_(runner.observers()) {
    runner_.set_observers(std::move(observers));
  }
  ~ObserverScope() { runner_.set_observers(std::move(before_)); }
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  PassRunner& runner_;
  Observers before_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_PASS_RUNNER_H_
