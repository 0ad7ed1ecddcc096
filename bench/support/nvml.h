/// The GPU's clock, power, temperature and driver from NVML, found at run time: it comes with the
/// driver, not with CUDA.
#ifndef VLR_BENCH_SUPPORT_NVML_H_
#define VLR_BENCH_SUPPORT_NVML_H_

#include <cstdint>
#include <string>

namespace vlr::bench {

class Nvml {
 public:
  /// Of the GPU with this PCI address, as cudaDeviceGetPCIBusId gives it.
  explicit Nvml(const char* pci_bus_id);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // What cannot be had is 0 or "unknown".
  int sm_mhz() const;
  int max_sm_mhz() const;
  int memory_mhz() const;
  double power_limit_watts() const;
  int64_t millijoules() const;  ///< since the driver was loaded; the counter steps every 20-100 ms
  int celsius() const;
  uint64_t clock_reasons() const;  ///< why the clock is not higher: bits that reason_names() names
  std::string driver() const;

 private:
  void* library_ = nullptr;
  void* device_ = nullptr;
};

/// "sw_power_cap hw_thermal_slowdown"; of idling and of settings made by hand nothing.
std::string reason_names(uint64_t reasons);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_NVML_H_
