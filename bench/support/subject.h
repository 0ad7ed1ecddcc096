/// One op at one shape with its operands made: what is checked and timed, whatever the op is.
#ifndef VLR_BENCH_SUPPORT_SUBJECT_H_
#define VLR_BENCH_SUPPORT_SUBJECT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "bench/support/machine.h"
#include "bench/support/operands.h"
#include "bench/support/shape.h"
#include "kernels/core/op.h"

namespace vlr::bench {

/// How far an implementation is from the reference at one shape.
struct Errors {
  int64_t elements = 0;  ///< that were compared
  int64_t wrong = 0;     ///< beyond the tolerance
  double worst = 0;      ///< distance in tolerances: above 1 is wrong
  double max_abs = 0, p999_abs = 0, rms = 0;
  double reference_rms = 0;
  /// Of steps of the output's dtype: none, one, two, up to 4, 8, 16, ... and more.
  std::vector<int64_t> ulps;
  int64_t worst_index = -1;         ///< among those that were compared
  std::string other = "reference";  ///< whose values they were held against
  std::string worst_at;  ///< "[3, 17] = 1.5, reference 1.25, 4 tolerances; x[3, 17] = 0.3"
};

/// Where a subject's operands are when it is timed.
struct Placement {
  bool warm = false;  ///< one set, which caches keep as far as they can; else cold
  std::set<std::string> warm_operands;  ///< inputs that all sets share: warm one by one
  Data data;
};

class Subject {
 public:
  virtual ~Subject() = default;

  virtual const Shape& shape() const = 0;
  virtual Cost cost() const = 0;
  /// What is timed together takes so many bytes.
  virtual int64_t bytes() const = 0;
  virtual int64_t num_sets() const = 0;
  /// Outputs without elements: there is nothing to do, so nothing to judge.
  virtual bool is_empty() const = 0;
  /// Nothing that is timed is in a cache.
  virtual bool is_cold() const = 0;
  /// Implementations of the machine's device that take the shape, in the order of the list. With
  /// cuBLASLt there is "cublaslt_fast", too: without the condition that rows keep their bits.
  virtual std::vector<std::string> takers() const = 0;
  /// Makes one ready: workspace, algorithms. Its place among those that are open.
  virtual Result<size_t> open(const std::string& implementation) = 0;

  virtual Status launch(size_t open, int64_t set) = 0;
  /// One launch on operands of this seed, compared with the reference on some rows, and as a whole
  /// with the yardstick: the first implementation of the list that takes the shape and is another one,
  /// asked for or not. Where they differ, and rows are independent, the reference says who is wrong.
  /// Without one the reference computes all of a small shape. Nothing but outputs may be written: not
  /// inputs, guards around operands and the workspace, or gaps between rows.
  virtual Status verify(size_t open, uint64_t seed) = 0;
  /// The same with all that there is to say, of all rows where the reference is not too slow. Then a
  /// second launch on the same inputs and with numbers in the outputs.
  virtual Result<Errors> errors(size_t open, uint64_t seed, Contents contents) = 0;
  /// kInternal unless rows have the same bits alone, in small batches and in all of it, and on the host
  /// with one thread. kUnimplemented where no part of the shape could be compared.
  virtual Status same_bits(size_t open) = 0;
  /// kInternal unless so many launches on the same operands have the same bits.
  virtual Status soak(size_t open, int64_t launches) = 0;
  /// Operands as the placement has them: after verify() filled them otherwise.
  virtual void fill() = 0;
  /// Before timing: outputs hold numbers that are no answers in every set. After it, and before one
  /// more window: the same in some places of a set, both picked by chance. Then that set, the first and
  /// the last have what the reference gives for fill()'s operands, without another launch.
  /// Where outputs are inputs, too, it launches: some launches in a row on fill()'s operands, of which
  /// the last one is compared.
  virtual void poison_outputs() = 0;
  virtual void poison_places() = 0;
  virtual Status check_left(size_t open) = 0;
  virtual const Operands& operands() const = 0;
};

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_SUBJECT_H_
