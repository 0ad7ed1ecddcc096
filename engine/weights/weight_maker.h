/// Weights as a plan wants them, from what a checkpoint's files have: ranges of files, and codes that
/// are read or made, one weight ahead.
#ifndef VLR_ENGINE_WEIGHTS_WEIGHT_MAKER_H_
#define VLR_ENGINE_WEIGHTS_WEIGHT_MAKER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/file_reader.h"
#include "engine/runtime/safetensors.h"
#include "engine/weights/offload_folder.h"
#include "engine/weights/quantized_tensors.h"
#include "kernels/core/thread_pool.h"
#include "model/weight_plan.h"
#include "vlr/status.h"

namespace vlr {

/// What a weight was before it was quantised, times probe_sign(), and which of its rows come from
/// which stored tensor.
struct Fingerprint {
  std::vector<float> values;  ///< [N]
  std::vector<std::pair<std::string, int64_t>> parts;
};
using Fingerprints = std::map<std::string, Fingerprint, std::less<>>;  ///< by name of the weight

/// The dtype that `spec` is stored in: bf16, f16 or f32, the same for all of its parts that are
/// dense (bf16 if none is). Fails if a part is missing (kNotFound) or is not what the spec expects
/// (kInvalidArgument).
Result<DType> check_weight(const WeightSpec& spec, const Checkpoint& checkpoint);

/// How a checkpoint's bytes are read, and what came of it.
struct WeightLoading {
  ReadOptions read = {};
  std::string offload_folder = {};  ///< for weights on disk
  OffloadFolder::System offload_system = {};
  /// Of the bytes that will be read, how many are done, at most ten times a second and at the end.
  std::function<void(int64_t done, int64_t total)> on_progress = {};
  ReadStats stats = {};  ///< set by load()
};

/// Counts and times a load for its caller, who may be nobody.
class LoadWatch {
 public:
  explicit LoadWatch(WeightLoading* loading) : loading_(loading) {}

  ReadOptions read_options() const { return loading_ ? loading_->read : ReadOptions(); }
  std::string offload_folder() const { return loading_ ? loading_->offload_folder : ""; }
  OffloadFolder::System offload_system() const {
    return loading_ ? loading_->offload_system : OffloadFolder::System();
  }
  void expect(const WeightSpec& spec, const Checkpoint& checkpoint);
  void report(int64_t done) {
    const auto time = Clock::now();
    if (!loading_ || !loading_->on_progress || time - reported_ < std::chrono::milliseconds(100))
      return;
    reported_ = time;
    loading_->on_progress(done, total_);
  }
  void end(ReadStats stats) {
    if (!loading_) return;
    stats.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    loading_->stats = stats;
    if (loading_->on_progress) loading_->on_progress(total_, total_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  WeightLoading* loading_;
  int64_t total_ = 0;
  Clock::time_point start_ = Clock::now(), reported_ = start_;
};

/// A range of a file that a weight is made from.
struct SourceRange {
  size_t part = 0;
  std::string_view name;  ///< of the tensor
  const StoredTensor* tensor = nullptr;
  int64_t file_offset = 0, bytes = 0;
};

/// The bytes of a part's rows in the mapped file.
std::span<const std::byte> part_bytes(const WeightPart& part, const StoredTensor& stored);
/// The parts' rows, in order; of a part that is stored quantised all that stands beside it, too.
/// The spec has passed check_weight().
std::vector<SourceRange> ranges_of(const WeightSpec& spec, const Checkpoint& checkpoint);

/// What a quantised weight is made from, in memory of the host. Move-only.
struct QuantizedSource {
  Buffer memory;
  StoredTensors tensors;                          ///< of parts that are stored quantised
  std::vector<std::span<const std::byte>> dense;  ///< a part's rows; empty: stored quantised
  int64_t bytes = 0;                              ///< of files
};

/// Reads what quantised weights are made from, one weight ahead of the one that is made.
class SourceReader {
 public:
  SourceReader(const Checkpoint& checkpoint, const FileReader& files, const WeightPlan& plan)
      : checkpoint_(checkpoint), files_(files) {
    for (const WeightSpec& spec : plan) {
      if (spec.format != WeightFormat::kDense) order_.push_back(&spec);
    }
    read_ahead();
  }

  /// The next one in the plan. Its memory is taken back with the call after the next one.
  Result<QuantizedSource*> next() {
    VLR_RETURN_IF_ERROR(coming_.get());
    std::swap(here_, ahead_);
    read_ahead();
    return &here_;
  }

 private:
  void read_ahead();

  const Checkpoint& checkpoint_;
  const FileReader& files_;
  std::vector<const WeightSpec*> order_;
  size_t begun_ = 0;
  QuantizedSource here_, ahead_;
  std::future<Status> coming_;  // of ahead_; its destructor waits
};

/// A quantised weight from its parts, those that are dense quantised now. The spec has passed
/// check_weight(), which said `dtype`.
Result<JoinedWeight> make_quantized(const WeightSpec& spec, DType dtype,
                                    const QuantizedSource& source, ThreadPool& threads);
/// One weight from its parts, of the plan's shape.
Result<JoinedWeight> join_parts(const WeightSpec& spec, std::vector<QuantizedTensor> parts);
Fingerprint fingerprint_of(const WeightSpec& spec, std::vector<float> values);
void keep_fingerprint(const WeightSpec& spec, JoinedWeight& w, Fingerprints& to);
/// The bytes of each of tensors_of().
std::vector<std::span<const std::byte>> bytes_of(const JoinedWeight& w);

}  // namespace vlr

#endif  // VLR_ENGINE_WEIGHTS_WEIGHT_MAKER_H_
