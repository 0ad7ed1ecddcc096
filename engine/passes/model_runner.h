/// A model on a device: runs its three graphs (vision tower, prefix pass, score pass) over packed
/// inputs.
///
/// Layers of the decoder may be computed on the CPU beside a GPU. The passes of text are then made
/// of sections that take turns: the device's, and the host's in f32, which run in the calling
/// thread and the device's pool. Between two sections the residual stream is carried over, as are
/// the vision features that DeepStack adds in a section of the host.
#ifndef VLR_ENGINE_PASSES_MODEL_RUNNER_H_
#define VLR_ENGINE_PASSES_MODEL_RUNNER_H_

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "engine/runtime/device.h"
#include "engine/runtime/executor.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "model/mrope_positions.h"
#include "model/text_decoder.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// One image or video for the vision tower.
struct VisionInput {
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;  ///< in patches
  std::span<const uint8_t> patches;            ///< [grid_t * grid_h * grid_w, 1536]
  /// Null: patches are read before run_vision() returns. Else they are pinned memory that the
  /// device reads when it comes to it, and that this keeps.
  std::shared_ptr<const void> owner = {};
  int64_t num_patches() const { return grid_t * grid_h * grid_w; }
};

/// What the tower makes of a list of inputs, one row a merged token, inputs one after the other.
/// Its memory is kept for the next list.
struct VisionFeatures {
  int64_t rows = 0;
  std::vector<Buffer> levels;  ///< visual, then deepstack.0, 1, ...: [rows, C] each
};

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

/// Memory of a score pass, without its inputs.
struct ScorePlan {
  RunPlan run;                   ///< of the device's section that takes most
  const Graph* graph = nullptr;  ///< that section's
  int64_t carried_bytes = 0;     ///< between sections, on the device
  int64_t host_bytes = 0;        ///< what sections of the host work in
  int64_t pinned_bytes = 0;      ///< through which values are carried
  int64_t total() const { return run.total() + carried_bytes; }
};

/// Sizes of batches that are too small to keep a GPU busy are rounded up, so that one recording
/// serves many of them.
struct RecordingLimits {
  int64_t max_tokens = 512;  ///< larger batches are launched op by op; 0: none is recorded
  size_t max_recordings = 64;
};

/// One thread at a time.
class ModelRunner {
 public:
  struct Observers {
    ValueObserver on_value;
    std::function<bool(std::string_view)> wants_value;
    std::function<void(const NodeTiming&)> on_node;
    std::function<void(const CopyTiming&)> on_copy = {};
  };

  /// config, weights, device and the stream of weights, if there is one, must outlive the runner.
  /// `host_layers` of the decoder are computed on the CPU, with weights that are there.
  static Result<std::unique_ptr<ModelRunner>> create(
      const ModelConfig& config, const WeightLookup& weights, OpenDevice& device,
      const GraphOptions& options, Observers observers, WeightSupply* stream = nullptr,
      std::set<int64_t> host_layers = {});

  /// Measures the GPU's libraries on this model's products, for batches of up to `max_tokens`
  /// tokens and `max_patches` patches. Nothing on the CPU.
  Status measure(int64_t max_tokens, int64_t max_patches);
  /// The most device memory that this takes, where there is so much.
  Result<int64_t> measuring_bytes(int64_t max_tokens, int64_t max_patches) const;

  /// The memory that passes work in: how much of it there is, and another size while none runs.
  int64_t arena_bytes() const { return arena_.size(); }
  Status resize_arena(int64_t bytes) {
    arena_.release();
    return arena_.reserve(bytes);
  }

  /// Runs the tower over all inputs, in batches of about `batch_patches`. `features` gets new rows,
  /// and behind them `more_rows` for the caller to fill. Returns how many batches there were.
  Result<int64_t> run_vision(std::span<const VisionInput> inputs, int64_t batch_patches,
                             VisionFeatures& features, int64_t more_rows = 0);

  /// Rows [first, first + rows) of every level, one level after the other, to or from pieces of
  /// host memory, in the order of the stream.
  Status save_features(const VisionFeatures& features, int64_t first, int64_t rows,
                       std::span<const std::span<std::byte>> to);
  Status load_features(std::span<const std::span<std::byte>> from, int64_t first, int64_t rows,
                       VisionFeatures& features);

  /// Makes room for the keys and values of `rows` prefix tokens; what was there is lost when it has
  /// to grow.
  Status reserve_prefixes(int64_t rows);
  int64_t prefix_capacity() const { return prefix_capacity_; }
  int64_t prefix_row_bytes() const;       ///< of all layers of the device together
  int64_t host_prefix_row_bytes() const;  ///< of the host's

  /// Computes prefixes (their prefix_len is 0) into the rows from `first_row` on.
  Status run_prefixes(std::span<const TextInput> batch, const VisionFeatures& features,
                      int64_t first_row);

  /// A score batch that was given to the device. At most kInFlight at a time.
  struct Ticket {
    int slot = -1;
    size_t sequences = 0;
  };
  static constexpr int kInFlight = 2;
  Result<Ticket> start_scores(std::span<const TextInput> batch, const VisionFeatures& features);
  /// Waits for the batch: log-odds of its sequences.
  Result<std::vector<float>> finish(const Ticket& ticket);
  /// Both at once.
  Result<std::vector<float>> run_scores(std::span<const TextInput> batch,
                                        const VisionFeatures& features);

  /// Memory of one pass of these sizes, without its inputs.
  Result<ScorePlan> plan_scores(const TextSizes& sizes) const;
  Result<RunPlan> plan_vision(int64_t patches) const;
  int64_t text_input_bytes(const TextSizes& sizes) const;
  int64_t vision_input_bytes(int64_t patches) const;
  int64_t feature_row_bytes() const;  ///< of all levels together

  /// From the next run on. While nodes or values are observed, nothing is recorded or replayed.
  void set_observers(Observers observers) { observers_ = std::move(observers); }

  RecordingLimits recordings;
  int64_t row_chunk = 0;  ///< RunArgs::row_chunk of every pass that runs or is planned
  int64_t num_replays() const { return num_replays_; }  ///< batches that ran as a recording

  DType dtype() const { return options_.dtype; }  ///< of activations
  int64_t num_layers() const { return config_.text_config.num_hidden_layers; }
  const Graph* vision_graph() const { return vision_graph_ ? &*vision_graph_ : nullptr; }
  std::vector<const Graph*> graphs() const;  ///< all that the device runs
  OpenDevice& device() { return device_; }
  OpenDevice& host() { return *host_; }  ///< the CPU as the host's layers see it

 private:
  /// Host arrays of one run, and where they are on the device. Two of each kind take turns, so that
  /// the host fills one while the device reads the other.
  struct Slot {
    Buffer staging, memory, out_staging, out;
    OpenDevice::Mark done;                            ///< of the last run that read it
    std::vector<std::shared_ptr<const void>> owners;  ///< of what it read elsewhere
  };
  class Inputs;

  ModelRunner(const ModelConfig& config, OpenDevice& device, const GraphOptions& options,
              Observers observers, std::set<int64_t> host_layers);

  /// Consecutive layers of a text pass that are computed in one place.
  struct Section {
    TextSection layers;
    bool on_host = false;
    Graph graph;
    std::optional<Executor> executor;
  };
  using Sections = std::deque<Section>;  // their executors know the addresses of the graphs
  Result<Sections> make_sections(TextPass pass, const WeightLookup& weights, WeightSupply* stream);
  Context& context(const Section& s) const {
    return s.on_host ? host_->context() : device_.context();
  }
  /// Matrix products to measure, and what memory they work in.
  struct Measuring {
    struct Run {
      const Executor* executor;
      RunArgs args;
      RunPlan plan;
    };
    std::vector<Run> runs;
    int64_t arena_bytes = 0, bound_bytes = 0;
    int64_t scratch_bytes = 0, least_scratch_bytes = 0;
  };
  Result<Measuring> plan_measuring(int64_t max_tokens, int64_t max_patches) const;
  Status run(const Executor& executor, RunArgs& args, std::string_view kind);
  std::string next_name(std::string_view kind);
  Status run_planned(const Executor& executor, RunArgs& args, const RunPlan& plan,
                     std::span<std::byte> arena, Context& ctx, const std::string& name);

  /// A text pass as its sections are given it.
  struct TextRun {
    RunArgs device, host;
    int64_t first_visual = 0;  // row of the features that is the host's first one
  };
  Status run_sections(const Sections& sections, TextRun& pass, std::string_view kind);
  Status to_host(const Tensor& from, const Tensor& to);
  Status to_device(const Tensor& from, const Tensor& to);
  /// Bytes of what is carried between sections: rows of the residual stream, of final tokens, of
  /// vision features.
  struct Carried {
    int64_t device = 0, host = 0, pinned = 0;
  };
  Carried carried(int64_t tokens, int64_t sequences, int64_t visual) const;
  std::vector<size_t> host_levels() const;
  Status observe(std::string_view name, const ConstTensor& t) const;
  template <class Copy>
  Status for_each_piece(std::span<const std::span<std::byte>> pieces,
                        const VisionFeatures& features, int64_t first, int64_t rows,
                        const Copy& copy) const;
  Status run_text(std::span<const TextInput> batch, const VisionFeatures& features, TextPass pass,
                  int64_t first_prefix_row, Slot& slot);
  Status replay_or_run(const Executor& executor, RunArgs& args, std::string_view kind,
                       const std::string& key);
  RunArgs text_plan_args(const TextSizes& sizes,
                         std::array<std::vector<ops::AttentionSegment>, 2>& segments) const;
  Tensor prefix_rows(int64_t layer, int64_t first, int64_t count) const;
  int64_t padded(int64_t count, int64_t tokens) const;
  int64_t weight_bytes() const;

  const ModelConfig& config_;
  OpenDevice& device_;
  GraphOptions options_;
  Observers observers_;
  RotaryPairs text_pairs_, vision_pairs_;
  const std::set<int64_t> host_layers_;
  std::unique_ptr<OpenDevice> host_;
  Sections score_, prefix_;  // one each where all layers are on the device
  std::optional<Graph> vision_graph_;
  std::optional<Executor> vision_;
  Buffer arena_, host_arena_, carrier_;
  Buffer prefix_memory_, host_prefix_memory_;  // [layers, capacity, 2 * Hkv * D]
  int64_t prefix_capacity_ = 0;
  std::array<Slot, kInFlight> text_slots_, prefix_slots_, vision_slots_;
  int next_text_ = 0, next_prefix_ = 0, next_vision_ = 0;
  std::map<std::string, int64_t, std::less<>> runs_;  // how many of each kind, for observers

  std::map<std::string, std::optional<OpenDevice::Recording>> recordings_;  // empty: seen once
  int64_t num_replays_ = 0;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PASSES_MODEL_RUNNER_H_
