/// Weights by name on the CPU: views into a mapped checkpoint, and tensors put together from several
/// of its rows, perhaps quantised on the way.
#ifndef VLR_ENGINE_WEIGHTS_WEIGHT_STORE_H_
#define VLR_ENGINE_WEIGHTS_WEIGHT_STORE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/safetensors.h"
#include "engine/weights/weight_maker.h"
#include "model/weight_plan.h"
#include "vlr/status.h"

namespace vlr {

/// Whether the CPU uses a weight where the file is mapped: one range of a file that is aligned there.
/// Plans and load() ask this.
bool is_mapped(const WeightSpec& spec);

/// Owns a checkpoint's mapping and the copies. Immutable after load(), so any thread may read and
/// several engines can share one; views live as long as the store, moved or not.
class WeightStore {
 public:
  /// A weight that is one aligned range of a file becomes a view, whose pages are read when they
  /// are first touched. Any other one (of several parts, unaligned, or quantised) is copied here.
  /// `threads` quantise; null is fine where nothing is quantised. kDataLoss: a file changed.
  /// kInternal: the plan is of another checkpoint.
  static Result<WeightStore> load(Checkpoint checkpoint, const WeightPlan& plan,
                                  ThreadPool* threads = nullptr, WeightLoading* loading = nullptr);

  /// The plan's tensors without data, the dense ones all in one dtype.
  static WeightStore for_planning(const WeightPlan& plan, DType dtype);

  /// The weight on the CPU; kNotFound if the plan had none of that name.
  Result<ConstTensor> get(std::string_view name) const;
  bool contains(std::string_view name) const { return tensors_.contains(name); }
  const std::map<std::string, ConstTensor, std::less<>>& tensors() const { return tensors_; }

  const Fingerprints& fingerprints() const { return fingerprints_; }
  int64_t bytes_owned() const { return bytes_owned_; }    ///< copies, in memory for good
  int64_t bytes_mapped() const { return bytes_mapped_; }  ///< views; the page cache's, reclaimable

 private:
  struct FreeAligned {
    void operator()(std::byte* p) const;
  };
  using Buffer = std::unique_ptr<std::byte, FreeAligned>;  // 64-byte aligned

  Checkpoint checkpoint_;
  std::vector<Buffer> buffers_;
  std::map<std::string, ConstTensor, std::less<>> tensors_;
  Fingerprints fingerprints_;
  int64_t bytes_owned_ = 0;
  int64_t bytes_mapped_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_WEIGHT_STORE_H_
