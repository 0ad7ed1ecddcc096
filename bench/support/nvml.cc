#include "bench/support/nvml.h"

#include <dlfcn.h>

#include <utility>

namespace vlr::bench {
namespace {

constexpr int kSmClock = 1, kMemoryClock = 2;  // NVML_CLOCK_SM, NVML_CLOCK_MEM
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

int clock(void* library, void* device, const char* name, int which = kSmClock) {
  unsigned mhz = 0;
  return device && call(library, name, device, which, &mhz) ? static_cast<int>(mhz) : 0;
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
int Nvml::memory_mhz() const { return clock(library_, device_, kClockMax, kMemoryClock); }

int64_t Nvml::millijoules() const {
  unsigned long long v = 0;
  const bool known = device_ && call(library_, "nvmlDeviceGetTotalEnergyConsumption", device_, &v);
  return known ? static_cast<int64_t>(v) : 0;
}

int Nvml::celsius() const {
  constexpr int kGpuSensor = 0;
  unsigned v = 0;
  const bool known = device_ && call(library_, "nvmlDeviceGetTemperature", device_, kGpuSensor, &v);
  return known ? static_cast<int>(v) : 0;
}

uint64_t Nvml::clock_reasons() const {
  unsigned long long v = 0;
  if (!device_) return 0;
  if (!call(library_, "nvmlDeviceGetCurrentClocksEventReasons", device_, &v))
    call(library_, "nvmlDeviceGetCurrentClocksThrottleReasons", device_, &v);  // before driver 535
  return v;
}

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

std::string reason_names(uint64_t reasons) {
  // nvmlClocksEventReasons: bits that slow a card down.
  constexpr std::pair<uint64_t, const char*> kNames[] = {{0x04, "sw_power_cap"},
                                                         {0x08, "hw_slowdown"},
                                                         {0x20, "sw_thermal_slowdown"},
                                                         {0x40, "hw_thermal_slowdown"},
                                                         {0x80, "hw_power_brake"}};
  std::string out;
  for (const auto& [bit, name] : kNames) {
    if ((reasons & bit) == 0) continue;
    if (!out.empty()) out += ' ';
    out += name;
  }
  return out;
}

}  // namespace vlr::bench
