#include "bench/support/nvml.h"

#include <dlfcn.h>

namespace vlr::bench {
namespace {

constexpr int kSmClock = 1;  // NVML_CLOCK_SM
constexpr const char* kClockNow = "nvmlDeviceGetClockInfo";
constexpr const char* kClockMax = "nvmlDeviceGetMaxClockInfo";

/// Calls a function of the library; true if it is there and returned NVML_SUCCESS.
template <class... Args>
bool call(void* library, const char* name, Args... args) {
  if (!library) return false;
  using Function = int (*)(Args...);
  const auto function = reinterpret_cast<Function>(dlsym(library, name));
  return function && function(args...) == 0;
}

int clock(void* library, void* device, const char* name) {
  unsigned mhz = 0;
  return device && call(library, name, device, kSmClock, &mhz) ? static_cast<int>(mhz) : 0;
}

}  // namespace

Nvml::Nvml(const char* pci_bus_id) : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
  if (!call(library_, "nvmlInit_v2")) return;
  if (!call(library_, "nvmlDeviceGetHandleByPciBusId_v2", pci_bus_id, &device_)) device_ = nullptr;
}

Nvml::~Nvml() {
  call(library_, "nvmlShutdown");
  if (library_) dlclose(library_);
}

int Nvml::sm_mhz() const { return clock(library_, device_, kClockNow); }
int Nvml::max_sm_mhz() const { return clock(library_, device_, kClockMax); }

double Nvml::power_limit_watts() const {
  unsigned milliwatts = 0;
  const bool known =
      device_ && call(library_, "nvmlDeviceGetEnforcedPowerLimit", device_, &milliwatts);
  return known ? milliwatts * 1e-3 : 0;
}

std::string Nvml::driver() const {
  char version[96] = "unknown";
  call(library_, "nvmlSystemGetDriverVersion", &version[0], unsigned{sizeof(version)});
  return version;
}

}  // namespace vlr::bench
