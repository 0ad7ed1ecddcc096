/// The GPU as a bench needs it: what it can do, memory, random operands, and time.
#ifndef VLR_BENCH_SUPPORT_GPU_H_
#define VLR_BENCH_SUPPORT_GPU_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/kernel_cost.h"
#include "bench/support/nvml.h"
#include "bench/support/roofline.h"
#include "bench/support/timer.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr::bench {

class Gpu {
 public:
  /// Null in a build without CUDA and on a machine without this GPU. It becomes the calling
  /// thread's.
  static std::unique_ptr<Gpu> open(int index = 0);
  virtual ~Gpu() = default;

  /// Measured now, at settled clocks: floating-point operations a second of cuBLASLt's products on
  /// normal random data, the best of some shapes and of the algorithms that it offers. 0: the unit
  /// has no such library.
  virtual Result<double> measure_flops(Unit unit) = 0;
  /// Bytes read plus bytes written a second by copies within so many bytes.
  virtual Result<double> measure_bytes(int64_t bytes) = 0;
  /// measure_flops() of bf16 and measure_bytes() of two gigabytes.
  Result<Peak> measure_peak() {
    VLR_ASSIGN_OR_RETURN(const double bytes, measure_bytes(int64_t{2} << 30));
    VLR_ASSIGN_OR_RETURN(const double flops, measure_flops(Unit::kBF16));
    return Peak{flops, bytes, "cublaslt bf16 at settled clocks, cudaMemcpyAsync 1 GiB"};
  }
  /// Name, driver, versions, clocks: what a result has to be read with.
  virtual std::vector<std::pair<std::string, std::string>> description() = 0;
  virtual int64_t l2_bytes() const = 0;
  virtual int64_t used_bytes() const = 0;  ///< of the whole card, now, by all programs
  virtual int64_t free_bytes() const = 0;  ///< the rest of it; 0: unknown

  /// `exact`: cuBLASLt may only use algorithms that give a row the same bits in every batch.
  virtual Context context(bool exact) = 0;

  /// Calls run(), which launches with ctx, once, while cuBLASLt measures its algorithms for that.
  /// Leaves outputs with anything.
  virtual Status choose_algorithms(const Context& ctx, const std::function<Status()>& run) = 0;

  /// Device memory, 256-byte aligned, until release_all(). Null after an error, of which the calls
  /// below do nothing.
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual void release_all() = 0;
  virtual void fill_random(const Tensor& t, uint64_t seed) = 0;
  virtual void poison(std::byte* data, int64_t bytes, uint8_t with) = 0;  ///< all bytes are `with`
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  virtual Status copy(void* to, const void* from, int64_t bytes) = 0;  ///< on the device
  /// compare_values.h's.
  virtual Result<int64_t> first_difference(const Tensor& a, const Tensor& b,
                                           const Tolerance& tolerance) = 0;
  /// checksum.h's, of bytes on the device.
  virtual Result<uint64_t> checksum(const std::byte* p, int64_t bytes) = 0;
  /// Waits for the device. The first error since the last call, which is then forgotten.
  virtual Status finish() = 0;

  /// Times launches that are replayed as a graph, so that the host's part of a launch is not in the
  /// figure, between events.
  virtual Timer& timer() = 0;
  virtual const Nvml& nvml() const = 0;
  /// What its units could do at most at a clock, by the architecture's papers; 0 where not known.
  virtual double limit_flops(Unit unit, int mhz) const = 0;
  virtual double limit_bytes() const = 0;
  /// The kernels of one launch. Nothing is launched.
  virtual Result<std::vector<KernelCost>> kernels_of(const std::function<Status()>& launch) = 0;
  /// A product as large as a model's, again and again: what a kernel has beside it in a model, where
  /// it takes most of the power.
  virtual Result<Launch> make_company() = 0;
  /// One launch that a profiler sees: between cudaProfilerStart and cudaProfilerStop.
  virtual Status profile(const std::function<Status()>& launch) = 0;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_GPU_H_
