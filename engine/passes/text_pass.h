/// The text decoder as a pass over packed sequences: the prefix pass fills the prefix memory, the
/// score pass makes log-odds.
#ifndef VLR_ENGINE_PASSES_TEXT_PASS_H_
#define VLR_ENGINE_PASSES_TEXT_PASS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "engine/passes/batch_inputs.h"
#include "engine/passes/layer_sections.h"
#include "engine/passes/pass_runner.h"
#include "engine/passes/prefix_memory.h"
#include "engine/passes/vision_pass.h"
#include "model/config.h"
#include "model/mrope_positions.h"
#include "model/text_decoder.h"
#include "vlr/status.h"

namespace vlr {

/// A packed sequence of the text decoder.
struct TextInput {
  std::span<const int32_t> ids;        ///< [S], the sequence's own tokens
  std::span<const int32_t> positions;  ///< [3, stride]: this sequence's tokens start at `offset`
  int64_t positions_stride = 0;
  int64_t offset = 0;                    ///< of its first own token within its ids and positions
  std::span<const int32_t> visual_rows;  ///< [S], rows of VisionFeatures or -1
  int64_t prefix_row = 0;                ///< its prefix's rows in the prefix memory
  int64_t prefix_len = 0;
};

/// How large the packed inputs of a pass are, for planning.
struct TextSizes {
  int64_t tokens = 0, sequences = 1, prefix_tokens = 0, visual_tokens = 0;
};

/// Sizes of batches that are too small to keep a GPU busy are rounded up, so that one recording
/// serves many of them.
struct RecordingLimits {
  int64_t max_tokens = 512;  ///< larger batches are launched op by op; 0: none is recorded
  size_t max_recordings = 64;
};

/// A batch that was given to the device.
struct Ticket {
  int set = -1;
  size_t sequences = 0;
};

/// One thread at a time.
class TextPass {
 public:
  /// config, prefixes, runner and stream must outlive it.
  static Result<std::unique_ptr<TextPass>> create(const ModelConfig& config, TextGraph which,
                                                  const std::set<int64_t>& host_layers,
                                                  const WeightLookup& weights,
                                                  PrefixMemory& prefixes, PassRunner& runner,
                                                  const GraphOptions& options,
                                                  WeightSupply* stream);

  /// Gives a batch to the device; at most kInFlight at a time. A prefix pass computes prefixes
  /// (their prefix_len is 0) into the rows of the prefix memory from `first_prefix_row` on.
  Result<Ticket> start(std::span<const TextInput> batch, const VisionFeatures& features,
                       int64_t first_prefix_row = 0);
  /// Waits for the batch: log-odds of its sequences. Score passes only.
  Result<std::vector<float>> finish(const Ticket& ticket);

  /// Memory of a pass of these sizes, or of a smaller one.
  Result<PassPlan> plan(const TextSizes& sizes) const;
  int64_t input_bytes(const TextSizes& sizes) const;  ///< of all sets that are in flight

  /// What a batch's sizes become: those of its recording where it may be recorded, else its own.
  TextSizes size_class(const TextSizes& sizes) const;
  RecordingLimits recordings;
  int64_t num_replays() const { return num_replays_; }  ///< batches that ran as a recording
  /// Before what recordings know by address goes away.
  void forget_recordings() { recordings_.clear(); }

  const LayerSections& sections() const { return *sections_; }

 private:
  struct Packed;
  TextPass(const ModelConfig& config, TextGraph which, const std::set<int64_t>& host_layers,
           PrefixMemory& prefixes, PassRunner& runner, const GraphOptions& options);
  bool scoring() const { return which_ == TextGraph::kScore; }
  Sizes largest_sizes(const TextSizes& sizes) const;
  Packed pack(std::span<const TextInput> batch, const TextSizes& sizes, bool pad_tiles) const;
  void count_host_features(Packed& packed, int64_t feature_rows) const;
  Status place(const Packed& packed, InputSet& set, SectionArgs& args) const;
  void bind_memory(const VisionFeatures& features, int64_t first_prefix_row, InputSet& set,
                   SectionArgs& args) const;
  Status replay_or_run(const InputSet& set, RunArgs& args);

  const ModelConfig& config_;
  const TextGraph which_;
  const std::set<int64_t> host_layers_;
  PrefixMemory& prefixes_;
  PassRunner& runner_;
  const GraphOptions options_;
  const RotaryPairs pairs_;
  std::vector<InputSpec> inputs_;
  InputSets sets_;
  std::unique_ptr<LayerSections> sections_;
  std::map<std::string, std::optional<OpenDevice::Recording>> recordings_;  // empty: seen once
  int64_t num_replays_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_TEXT_PASS_H_
