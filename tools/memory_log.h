/// Memory by purpose and by layer, from Options::on_memory: now, after loading, at its peak.
#ifndef VLR_TOOLS_MEMORY_LOG_H_
#define VLR_TOOLS_MEMORY_LOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "vlr/reranker.h"

namespace vlr::tools {

/// What is held at a time.
struct MemoryState {
  struct Bytes {
    int64_t device = 0, host = 0;
  };
  std::map<std::string, Bytes> purposes;
  Bytes total;
};

/// Any thread.
class MemoryLog {
 public:
  /// Called in the thread of a change, after it, with what is held then; null: nobody is.
  /// Set while nothing is scored.
  std::function<void(const MemoryState&)> on_change;

  void add(const MemoryEvent& event);
  MemoryState now() const;

  /// Tables: bytes by purpose after loading and at the peak of what came then, of the device's
  /// memory in the first place; bytes of weights by layer.
  void print() const;

 private:
  mutable std::mutex mutex_;
  MemoryState now_, loaded_, peak_;
  std::vector<MemoryPlan::Layer> layers_;
};

}  // namespace vlr::tools

#endif  // VLR_TOOLS_MEMORY_LOG_H_
