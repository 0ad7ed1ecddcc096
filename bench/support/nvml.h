/// The GPU's clock and driver from NVML, found at run time: it comes with the driver, not with
/// CUDA.
#ifndef VLR_BENCH_SUPPORT_NVML_H_
#define VLR_BENCH_SUPPORT_NVML_H_

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
  double power_limit_watts() const;
  std::string driver() const;

 private:
  void* library_ = nullptr;
  void* device_ = nullptr;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_NVML_H_
