#include "tools/memory_log.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "kernels/core/format_bytes.h"

namespace vlr::tools {
namespace {

/// "layers.3" -> {"layers.", "3"}; no number: {name, ""}.
std::pair<std::string_view, std::string_view> numbered(std::string_view name) {
  const size_t digits = name.find_last_not_of("0123456789") + 1;
  return {name.substr(0, digits), name.substr(digits)};
}

}  // namespace

void MemoryLog::add(const MemoryEvent& event) {
  MemoryState state;
  {
    const std::lock_guard lock(mutex_);
    if (!event.layer.empty()) {
      layers_.push_back({.name = std::string(event.layer),
                         .device_bytes = event.device_bytes,
                         .host_bytes = event.host_bytes});
      return;
    }
    now_.purposes[std::string(event.purpose)] = {event.device_bytes, event.host_bytes};
    now_.total = {event.device_total, event.host_total};
    const auto order = [](const MemoryState& s) { return std::pair(s.total.device, s.total.host); };
    if (event.phase == MemoryEvent::Phase::kLoad) {
      loaded_ = peak_ = now_;
    } else if (order(now_) > order(peak_)) {
      peak_ = now_;
    }
    if (!on_change) return;
    state = now_;
  }
  on_change(state);
}

MemoryState MemoryLog::now() const {
  const std::lock_guard lock(mutex_);
  return now_;
}

void MemoryLog::print() const {
  const std::lock_guard lock(mutex_);
  constexpr const char* kRow = "  {:<40} {:>12} {:>12}  {:>12} {:>12}\n";
  fmt::print("\nmemory\n  {:<40} {:>25}  {:>25}\n  {:<40} {:>12} {:>12}  {:>12} {:>12}\n", "",
             "after loading", "at the peak of scoring", "", "device", "host", "device", "host");
  const auto row = [&](std::string_view name, const MemoryState::Bytes& a,
                       const MemoryState::Bytes& b) {
    if (a.device + a.host + b.device + b.host == 0) return;
    fmt::print(fmt::runtime(kRow), name, format_bytes(a.device), format_bytes(a.host),
               format_bytes(b.device), format_bytes(b.host));
  };
  for (const auto& [purpose, unused] : now_.purposes) {
    const auto of = [&, &name = purpose](const MemoryState& s) {
      const auto it = s.purposes.find(name);
      return it == s.purposes.end() ? MemoryState::Bytes{} : it->second;
    };
    row(purpose, of(loaded_), of(peak_));
  }
  row("all together", loaded_.total, peak_.total);

  fmt::print("\nweights by layer\n  {:<40} {:>12} {:>12}\n", "", "device", "host");
  // Layers that are alike are one line.
  for (size_t begin = 0, end = 0; begin < layers_.size(); begin = end) {
    const MemoryPlan::Layer& first = layers_[begin];
    const auto [stem, number] = numbered(first.name);
    for (end = begin + 1; end < layers_.size() && !number.empty(); ++end) {
      const MemoryPlan::Layer& l = layers_[end];
      if (numbered(l.name).first != stem || l.device_bytes != first.device_bytes ||
          l.host_bytes != first.host_bytes)
        break;
    }
    const std::string name = end == begin + 1 ? first.name
                                              : fmt::format("{}{}-{}, each", stem, number,
                                                            numbered(layers_[end - 1].name).second);
    fmt::print("  {:<40} {:>12} {:>12}\n", name, format_bytes(first.device_bytes),
               format_bytes(first.host_bytes));
  }
}

}  // namespace vlr::tools
