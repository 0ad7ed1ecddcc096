/// The machine's roofs: measured when first asked for, and again at the end.
#ifndef VLR_BENCH_SUPPORT_ROOFS_H_
#define VLR_BENCH_SUPPORT_ROOFS_H_

#include <functional>
#include <string>
#include <vector>

#include "bench/support/gpu.h"
#include "bench/support/roofline.h"

namespace vlr::bench {

/// What a machine does at most of something in a second, and how sure that is.
struct Roof {
  std::string name;   ///< "bf16", "memory", "caches of 4 MiB"
  const char* unit;   ///< "FLOP/s" or "B/s"
  double before = 0;  ///< the best of those before the last; 0: not known
  double after = 0;   ///< the last one; 0: not measured again
  double limit = 0;   ///< what the chip's units come to at its highest clock; 0: not known

  double best() const { return before > after ? before : after; }
  /// Half the distance of both, as a share of the better one.
  double uncertainty() const;
};

class Roofs {
 public:
  /// Measured with; both have to outlive it. gpu null: the host.
  Roofs(Gpu* gpu, ThreadPool& threads) : gpu_(gpu), threads_(threads) {}

  Result<const Roof*> flops(Unit unit);
  /// Of operands that take so many bytes together. On the host they are as warm as that leaves them,
  /// on a GPU cold, unless `warm`.
  Result<const Roof*> bytes(int64_t bytes, bool warm);
  /// All of them once more.
  Status measure_again();
  const std::vector<std::unique_ptr<Roof>>& all() const { return roofs_; }

 private:
  Result<const Roof*> find(std::string name, const char* unit, double limit,
                           std::function<Result<double>()> measure);

  Gpu* gpu_;
  ThreadPool& threads_;
  std::vector<std::unique_ptr<Roof>> roofs_;
  std::vector<std::function<Result<double>()>> measures_;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_ROOFS_H_
