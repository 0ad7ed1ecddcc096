/// A model on a device: its vision tower, prefix pass and score pass, and the memory that they share.
#ifndef VLR_ENGINE_PASSES_MODEL_RUNNER_H_
#define VLR_ENGINE_PASSES_MODEL_RUNNER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "engine/passes/pass_runner.h"
#include "engine/passes/prefix_memory.h"
#include "engine/passes/product_measuring.h"
#include "engine/passes/text_pass.h"
#include "engine/passes/vision_pass.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "vlr/status.h"

namespace vlr {

/// One thread at a time.
class ModelRunner {
 public:
  /// config, weights, device and the stream of weights, if there is one, must outlive the runner.
  /// `host_layers` of the decoder are computed on the CPU, with weights that are there.
  static Result<std::unique_ptr<ModelRunner>> create(
      const ModelConfig& config, const WeightLookup& weights, OpenDevice& device,
      const GraphOptions& options, Observers observers, WeightSupply* stream = nullptr,
      const std::set<int64_t>& host_layers = {});

  TextPass& score() { return *score_; }
  TextPass& prefix() { return *prefix_; }
  VisionPass* vision() { return vision_.get(); }  ///< null: there is no tower
  PrefixMemory& prefixes() { return *prefixes_; }
  PassRunner& passes() { return *runner_; }
  OpenDevice& device() { return runner_->device(); }

  /// VisionPass::run(). kInvalidArgument: there are inputs and no tower.
  Result<int64_t> run_vision(std::span<const VisionInput> inputs, int64_t batch_patches,
                             VisionFeatures& features, int64_t more_rows = 0);
  int64_t feature_row_bytes() const { return vision_ ? vision_->feature_row_bytes() : 0; }
  /// Rows [first, first + rows) of every level of features, to or from pieces of host memory.
  Status save_features(const VisionFeatures& features, int64_t first, int64_t rows,
                       std::span<const std::span<std::byte>> to) {
    return vlr::save_features(device(), features, feature_row_bytes(), first, rows, to);
  }
  Status load_features(std::span<const std::span<std::byte>> from, int64_t first, int64_t rows,
                       VisionFeatures& features) {
    return vlr::load_features(device(), from, feature_row_bytes(), first, rows, features);
  }
  /// TextPass::start() and finish() of the score pass at once.
  Result<std::vector<float>> run_scores(std::span<const TextInput> batch,
                                        const VisionFeatures& features);
  /// Room for prefixes; recordings know where they are.
  Status reserve_prefixes(int64_t rows);
  /// Memory of the inputs of text that are in flight: score and prefix passes have sets of their
  /// own.
  int64_t text_input_bytes(const TextSizes& sizes) const {
    return score_->input_bytes(sizes) + prefix_->input_bytes(sizes);
  }

  /// Measures the GPU's libraries on this model's products, for batches of up to `max_tokens`
  /// tokens and `max_patches` patches. Nothing on the CPU.
  Status measure(int64_t max_tokens, int64_t max_patches);
  Result<int64_t> measuring_bytes(int64_t max_tokens, int64_t max_patches) const;

  DType dtype() const { return dtype_; }     ///< of activations
  std::vector<const Graph*> graphs() const;  ///< all that the device runs

 private:
  ModelRunner(DType dtype, std::unique_ptr<PassRunner> runner)
      : dtype_(dtype), runner_(std::move(runner)) {}
  MeasuredProducts products(int64_t max_tokens, int64_t max_patches) const;

  const DType dtype_;
  std::unique_ptr<PassRunner> runner_;
  std::unique_ptr<PrefixMemory> prefixes_;
  std::unique_ptr<TextPass> score_, prefix_;
  std::unique_ptr<VisionPass> vision_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_MODEL_RUNNER_H_
