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

#include "bench/support/roofline.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#include "vlr/status.h"

namespace vlr::bench {

/// Seconds of one launch.
struct Timing {
  double median = 0, p10 = 0, p90 = 0;
  int sm_mhz = 0;  ///< the clock while it ran; 0: unknown
};

class Gpu {
 public:
  /// Null in a build without CUDA and on a machine without this GPU. It becomes the calling
  /// thread's.
  static std::unique_ptr<Gpu> open(int index = 0);
  virtual ~Gpu() = default;

  /// Measured now, on normal random data: bf16 multiply-adds of a matrix product of 8192^3 by
  /// cuBLASLt, the best of the algorithms that it offers; bytes read plus bytes written by
  /// cudaMemcpyAsync from one gigabyte to another.
  virtual Result<Peak> measure_peak() = 0;
  /// Name, driver, versions, clocks: what a result has to be read with.
  virtual std::vector<std::pair<std::string, std::string>> description() = 0;
  virtual int64_t l2_bytes() const = 0;
  virtual int sm_mhz() const = 0;          ///< the clock now; 0: unknown
  virtual int64_t used_bytes() const = 0;  ///< of the whole card, now, by all programs

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
  virtual void poison(std::byte* data, int64_t bytes) = 0;  ///< NaN in every floating-point dtype
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  /// Waits for the device. The first error since the last call, which is then forgotten.
  virtual Status finish() = 0;

  /// Times launch(set), with set going around in [0, num_sets), queued many to a pair of events and
  /// replayed as a graph, so that the host's part of a launch is not in the figure.
  virtual Result<Timing> time(const std::function<Status(int64_t set)>& launch,
                              int64_t num_sets) = 0;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_GPU_H_
