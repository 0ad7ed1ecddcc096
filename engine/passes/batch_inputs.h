/// The arrays that the host gives a pass with every batch, and what it reads back. Each is declared
/// once: plan() adds up what a batch fills.
#ifndef VLR_ENGINE_PASSES_BATCH_INPUTS_H_
#define VLR_ENGINE_PASSES_BATCH_INPUTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/executor.h"
#include "kernels/attention/attention.h"
#include "model/graph.h"
#include "vlr/status.h"

namespace vlr {

/// Numbers of a row of a table of attention segments.
constexpr int64_t kSegmentFields = sizeof(ops::AttentionSegment) / sizeof(int32_t);

/// Sets of arrays that take turns, so that the host fills one while the device reads the other.
constexpr int kInFlight = 2;

struct InputSpec {
  std::string_view name;  ///< of the graph's bound value, or of a table
  DType dtype = DType::kI32;
  std::vector<Dim> dims;  ///< in the sizes of a batch

  Tensor shape(const Sizes& sizes) const;  ///< without data
};

/// Bytes of one set of inputs on the device, each array rounded up.
int64_t input_bytes(std::span<const InputSpec> inputs, const Sizes& sizes);
/// Bytes of an array that comes back, f32 [rows], on the device and beside it.
int64_t result_bytes(int64_t rows);

/// Host arrays of one batch, and where they are on the device.
struct InputSet {
  Buffer staging, memory, out_staging, out;
  OpenDevice::Mark done;                            ///< of the last run that read it
  std::vector<std::shared_ptr<const void>> owners;  ///< of what it read elsewhere
};

/// The sets of one pass.
class InputSets {
 public:
  explicit InputSets(OpenDevice& device);
  int take() {
    const int taken = next_;
    next_ = (next_ + 1) % kInFlight;
    return taken;
  }
  InputSet& operator[](int i) { return sets_[static_cast<size_t>(i)]; }

 private:
  std::array<InputSet, kInFlight> sets_;
  int next_ = 0;
};

/// A part of an array that is put together from several. `pinned`: the device reads it where it is.
struct InputPiece {
  const void* from = nullptr;
  int64_t bytes = 0;
  bool pinned = false;
};

/// One batch: values are given one by one, then brought to the device in one copy.
class BatchInputs {
 public:
  /// `inputs` must outlive it.
  BatchInputs(std::span<const InputSpec> inputs, const Sizes& sizes);

  template <class T>
  void set(std::string_view name, const std::vector<T>& values) {
    set_pieces(name, {{.from = values.data(), .bytes = std::ssize(values) * int64_t{sizeof(T)}}});
  }
  /// Pinned pieces are those of the last input.
  void set_pieces(std::string_view name, std::vector<InputPiece> pieces);

  /// Starts the copy and binds the tensors; for `host`, if not null, where they were staged. Then
  /// none may be pinned. kInternal: an input was not given, or is not of the declared size.
  Status place(OpenDevice& device, InputSet& set, RunArgs& args, RunArgs* host = nullptr);

 private:
  struct Part {
    Tensor tensor;
    int64_t offset = 0;
    std::vector<InputPiece> pieces;
  };
  Status check() const;
  Status copy(OpenDevice& device, InputSet& set) const;
  void bind(std::byte* base, Device device, RunArgs& args) const;

  std::span<const InputSpec> inputs_;
  std::vector<Part> parts_;  // one an input
  int64_t bytes_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_BATCH_INPUTS_H_
