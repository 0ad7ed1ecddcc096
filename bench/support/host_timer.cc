#include "bench/support/timer.h"
#include "kernels/core/clock.h"

namespace vlr::bench {
namespace {

class HostWindow : public Window {
 public:
  Launch launch;

  Result<double> run() const {
    const double start = seconds_now();
    for (int64_t i = 0; i < launches; ++i) VLR_RETURN_IF_ERROR(launch(i % round));
    return (seconds_now() - start) / static_cast<double>(launches);
  }
};

class HostTimer : public Timer {
 public:
  Result<std::unique_ptr<Window>> record(const Launch& launch, int64_t num_sets,
                                         int64_t launches) override {
    auto window = std::make_unique<HostWindow>();
    window->launch = launch;
    window->round = num_sets;
    window->launches = launches;
    return std::unique_ptr<Window>(std::move(window));
  }

  Result<std::vector<double>> run(std::span<const Window* const> windows) override {
    std::vector<double> out;
    for (const Window* w : windows) {
      VLR_ASSIGN_OR_RETURN(const double seconds, static_cast<const HostWindow*>(w)->run());
      out.push_back(seconds);
    }
    return out;
  }
};

}  // namespace

std::unique_ptr<Timer> host_timer() { return std::make_unique<HostTimer>(); }

}  // namespace vlr::bench
