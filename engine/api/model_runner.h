/// A model on a device: runs its three graphs (vision tower, prefix pass, score pass) over packed
/// inputs.
#ifndef VLR_ENGINE_API_MODEL_RUNNER_H_
#define VLR_ENGINE_API_MODEL_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/runtime/executor.h"
#include "engine/runtime/host_buffer.h"
#include "engine/runtime/weight_store.h"
#include "kernels/core/thread_pool.h"
#include "model/config.h"
#include "model/mrope_positions.h"
#include "model/text_decoder.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// One image or video for the vision tower.
struct VisionInput {
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;  ///< in patches
  std::span<const uint8_t> patches;            ///< [grid_t * grid_h * grid_w, 1536]
  int64_t num_patches() const { return grid_t * grid_h * grid_w; }
};

/// What the tower makes of a list of inputs, one row a merged token, inputs one after the other.
class VisionFeatures {
 public:
  int64_t rows = 0;
  std::vector<HostBuffer> levels;  ///< visual, then deepstack.0, 1, ...: [rows, C] f32 each
};

/// A packed sequence of the text decoder.
struct TextInput {
  std::span<const int32_t> ids;        ///< [S], the sequence's own tokens
  std::span<const int32_t> positions;  ///< [3, stride]: this sequence's tokens start at `offset`
  int64_t positions_stride = 0;
  int64_t offset = 0;                    ///< of its first own token within its ids and positions
  std::span<const int32_t> visual_rows;  ///< [S], rows of VisionFeatures or -1
  int64_t prefix_row = 0;                ///< its prefix's rows in the prefix store
  int64_t prefix_len = 0;
};

/// Keys and values of shared prefixes, for every layer. Rows are handed out one after the other.
struct PrefixStore {
  std::vector<HostBuffer> layers;  ///< [rows, 2 * Hkv * D] f32 each
  int64_t used = 0;                ///< rows that are filled
};

/// One thread at a time.
class ModelRunner {
 public:
  struct Observers {
    ValueObserver on_value;
    std::function<bool(std::string_view)> wants_value;
    std::function<void(const NodeTiming&)> on_node;
  };

  /// config and weights must outlive the runner, and so must threads and choices.
  static Result<std::unique_ptr<ModelRunner>> create(const ModelConfig& config,
                                                     const WeightLookup& weights,
                                                     ThreadPool& threads,
                                                     const ImplChoices& choices,
                                                     Observers observers);

  /// Runs the tower over all inputs, in batches of about `batch_patches`.
  Result<VisionFeatures> run_vision(std::span<const VisionInput> inputs, int64_t batch_patches);

  /// Empties the store and makes room for `rows` rows.
  Status reset_prefixes(int64_t rows);
  const PrefixStore& prefixes() const { return prefixes_; }

  /// Computes prefixes (their prefix_len is 0); their rows start at prefixes().used, one after the
  /// other.
  Status run_prefixes(std::span<const TextInput> batch, VisionFeatures& features);

  /// Log-odds of every sequence of a batch.
  Result<std::vector<float>> run_scores(std::span<const TextInput> batch, VisionFeatures& features);

  /// Bytes of the arena for a score batch of `tokens` tokens in `sequences` sequences, and for a
  /// vision batch.
  Result<RunPlan> plan_scores(int64_t tokens, int64_t sequences, int64_t prefix_tokens,
                              int64_t visual_tokens);
  Result<RunPlan> plan_vision(int64_t patches);

  int64_t prefix_row_bytes() const;  ///< of all layers together
  const Graph& score_graph() const { return score_graph_; }
  const Graph* vision_graph() const { return vision_graph_ ? &*vision_graph_ : nullptr; }
  const Graph& prefix_graph() const { return prefix_graph_; }

 private:
  ModelRunner(const ModelConfig& config, ThreadPool& threads, const ImplChoices& choices,
              Observers observers);
  Status run(const Executor& executor, RunArgs& args, std::string_view kind);
  Status run_text(std::span<const TextInput> batch, VisionFeatures& features, TextPass pass,
                  std::vector<float>& log_odds);

  const ModelConfig& config_;
  Observers observers_;
  Context ctx_;
  RotaryPairs text_pairs_, vision_pairs_;
  Graph score_graph_, prefix_graph_;
  std::optional<Graph> vision_graph_;
  std::optional<Executor> score_, prefix_, vision_;
  HostBuffer arena_;
  PrefixStore prefixes_;
  std::map<std::string, int64_t, std::less<>> runs_;  // how many of each kind, for observers
};

}  // namespace vlr

#endif  // VLR_ENGINE_API_MODEL_RUNNER_H_
