/// The vision tower as a pass: pictures in, features out.
#ifndef VLR_ENGINE_PASSES_VISION_PASS_H_
#define VLR_ENGINE_PASSES_VISION_PASS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/passes/batch_inputs.h"
#include "engine/passes/pass_runner.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "model/mrope_positions.h"
#include "vlr/status.h"

namespace vlr {

/// One image or video for the vision tower.
struct VisionInput {
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;  ///< in patches
  std::span<const uint8_t> patches;            ///< [grid_t * grid_h * grid_w, 1536]
  /// Null: patches are read before run() returns. Else they are pinned memory that the device reads
  /// when it comes to it, and that this keeps.
  std::shared_ptr<const void> owner = {};
  int64_t num_patches() const { return grid_t * grid_h * grid_w; }
};

/// What the tower makes of a list of inputs, one row a merged token, inputs one after the other.
/// Its memory is kept for the next list.
struct VisionFeatures {
  int64_t rows = 0;
  std::vector<Buffer> levels;  ///< visual, then deepstack.0, 1, ...: [rows, C] each
};

/// Rows [first, first + rows) of every level, one level after the other, to or from pieces of host
/// memory, in the order of the stream. `row_bytes`: of all levels together.
Status save_features(OpenDevice& device, const VisionFeatures& features, int64_t row_bytes,
                     int64_t first, int64_t rows, std::span<const std::span<std::byte>> to);
Status load_features(OpenDevice& device, std::span<const std::span<std::byte>> from,
                     int64_t row_bytes, int64_t first, int64_t rows, VisionFeatures& features);

/// One thread at a time.
class VisionPass {
 public:
  /// config, runner and stream must outlive it.
  static Result<std::unique_ptr<VisionPass>> create(const VisionConfig& config,
                                                    const WeightLookup& weights, PassRunner& runner,
                                                    const GraphOptions& options,
                                                    WeightSupply* stream);

  /// Runs the tower over all inputs, in batches of about `batch_patches`. `features` gets new rows,
  /// and behind them `more_rows` for the caller to fill. Returns how many batches there were.
  Result<int64_t> run(std::span<const VisionInput> inputs, int64_t batch_patches,
                      VisionFeatures& features, int64_t more_rows = 0);

  /// Memory of a pass over so many patches, without its inputs.
  Result<RunPlan> plan(int64_t patches) const;
  int64_t input_bytes(int64_t patches) const;  ///< of all sets that are in flight, at most
  int64_t feature_row_bytes() const;           ///< of all levels together

  const Graph& graph() const { return graph_; }
  const Executor& executor() const { return *executor_; }

 private:
  /// Frames of an input. They are independent, so a batch may end after any of them.
  struct Piece {
    const VisionInput* input;
    int64_t first_frame, frames;
    int64_t patches() const { return frames * input->grid_h * input->grid_w; }
  };
  VisionPass(const VisionConfig& config, PassRunner& runner, const GraphOptions& options);
  Sizes largest_sizes(int64_t patches) const;
  int64_t num_levels() const { return 1 + std::ssize(config_.deepstack_visual_indexes); }
  Status run_batch(std::span<const Piece> batch, VisionFeatures& features, int64_t first_row);

  const VisionConfig& config_;
  PassRunner& runner_;
  const GraphOptions options_;
  const RotaryPairs pairs_;
  Graph graph_;
  std::optional<Executor> executor_;
  std::vector<InputSpec> inputs_;
  InputSets sets_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_VISION_PASS_H_
