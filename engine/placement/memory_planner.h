/// Chooses what of a model is where and how large its passes may be, so that a memory cap is kept.
///
/// Nothing is loaded or run for it: the sizes of weights come from the checkpoint's headers, those
/// of passes from the graphs. open() and plan() ask the same planner, so what one says the other
/// does.
///
/// A cap that has no room for everything is met in steps, those that cost least first: embeddings
/// in host memory; the vision tower streamed; more and more decoder layers streamed, evenly spread,
/// so that a copy hides behind the layers between; layers streamed matrix by matrix; small chunks
/// of rows. The first step counts whose batches are large enough to hide the copies and that has
/// room for the longest document and the largest picture of the options; else the fastest.
#ifndef VLR_ENGINE_PLACEMENT_MEMORY_PLANNER_H_
#define VLR_ENGINE_PLACEMENT_MEMORY_PLANNER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/passes/model_runner.h"
#include "engine/placement/device_map.h"
#include "engine/runtime/device.h"
#include "engine/weights/device_weights.h"
#include "model/config.h"
#include "model/graph_builder.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// What is decoded and kept before it is scored, in tokens.
constexpr int64_t kWaveTokens = 32768, kWaveVisualTokens = 8192;
/// Media that are decoded at a time; a wave may be that many too large.
constexpr int64_t kChunkMedia = 16;
/// What buffers of a device are rounded up, all of them together, at most.
constexpr int64_t kRounding = int64_t{1} << 20;

struct BatchLimits {
  int64_t tokens = 0;           ///< of a text batch
  int64_t sequences = 0;        ///< of a text batch
  int64_t patches = 0;          ///< of a vision batch
  int64_t frame_patches = 0;    ///< of a frame that is a vision batch of its own
  int64_t visual_rows = 0;      ///< vision features in memory at once
  int64_t prefix_rows = 0;      ///< prefix tokens kept from the start
  int64_t max_prefix_rows = 0;  ///< as far as that may grow
  int64_t max_sequence = 0;     ///< tokens of a sequence that is a batch of its own
};

/// A step of the list above.
struct Placement {
  bool host_embeddings = false;
  bool stream_vision = false;
  int64_t streamed_layers = 0;  ///< decoder layers, evenly spread
  bool by_matrix = false;       ///< a layer's products come one by one
  int64_t row_chunk = 0;        ///< RunArgs::row_chunk
};

/// What was chosen.
struct PlacedModel {
  WeightPlan plan;  ///< with places and groups
  Placement placement;
  bool given_map = false;  ///< the options say where weights are, not `placement`
  DeviceWeightBytes weights;
  BatchLimits limits;
  double transfer_seconds = 0;  ///< of a pass's bytes over the bus or from disk, by estimate
  double compute_seconds = 0;   ///< of the largest batch, by estimate
  /// Decoder layers that are not on the GPU, and what the largest batch takes for them by estimate:
  /// how long the GPU waits for their copies, or for the CPU to compute them.
  int64_t num_host_layers = 0;
  double streaming_seconds = 0, cpu_exec_seconds = 0;
};

/// What Options::gpu_memory leaves beside the CUDA context; without one, most of what is free.
Result<int64_t> cap_of(OpenDevice& device, int64_t gpu_memory);

/// What the CUDA context and the libraries' kernels take of a card beside what the engine counts.
int64_t context_estimate();

class MemoryPlanner {
 public:
  /// Options, config, graph and device must outlive the planner. It computes with the device's
  /// context and takes none of its memory.
  static Result<std::unique_ptr<MemoryPlanner>> create(const Options& options,
                                                       const ModelConfig& config, WeightPlan plan,
                                                       const GraphOptions& graph,
                                                       OpenDevice& device);

  /// The best that `cap` bytes beside the context allow. kOutOfMemory when even the smallest batch
  /// does not fit, with the smallest cap that does.
  Result<PlacedModel> choose(int64_t cap);
  /// The smallest cap, context included, for which choose() makes limits that are enough; 0: none.
  int64_t smallest_cap(const std::function<bool(const BatchLimits&)>& enough);

  ModelRunner& runner() { return *runner_; }  ///< plans, and has no weights
  /// The plan's tensors, without data.
  WeightLookup shapes() const;
  int64_t num_layers() const { return config_.text_config.num_hidden_layers; }
  int64_t ring_bytes() const { return ring_bytes_; }
  int64_t check_bytes() const { return check_bytes_; }  ///< of the checks of quantised weights
  /// Of dense weights: a GPU's are those of activations, a CPU's those of the checkpoint.
  DType weight_dtype() const { return device_.is_gpu() ? graph_.dtype : cpu_weight_dtype(); }
  DType cpu_weight_dtype() const { return config_.dtype.value_or(DType::kBF16); }

 private:
  /// A document alone: its tokens, the patches of a frame, the visual tokens.
  struct Wants {
    int64_t sequence = 0, patches = 0, visual_rows = 0;
  };

  MemoryPlanner(const Options& options, const ModelConfig& config, const GraphOptions& graph,
                OpenDevice& device)
      : options_(options), config_(config), graph_(graph), device_(device) {}

  Wants wants_of_options() const;
  std::vector<Placement> placements(int64_t cap) const;
  Result<WeightPlan> place(const Placement& p) const;
  int64_t chunk_for(int64_t cap) const;
  std::optional<BatchLimits> limits_in(int64_t room, int64_t row_chunk);
  int64_t needed(int64_t row_chunk, const Wants& w);
  int64_t batch_budget(int64_t usual) const;
  BatchLimits cpu_limits() const;
  int64_t text_bytes(int64_t row_chunk, int64_t tokens, int64_t sequences);
  int64_t vision_bytes(int64_t row_chunk, int64_t patches);
  DeviceWeightBytes layer_weight_bytes(const WeightPlan& plan) const;  ///< of decoder layers
  void estimate_host_layers(PlacedModel& placed) const;

  const Options& options_;
  const ModelConfig& config_;
  const GraphOptions& graph_;
  OpenDevice& device_;
  WeightPlan plan_;
  DeviceMap map_;
  bool given_map_ = false;
  std::map<std::string, ConstTensor, std::less<>> shapes_;
  int64_t ring_bytes_ = 0, region_row_bytes_ = 0, check_bytes_ = 0;
  double token_flops_ = 0, flops_ = 650e12;
  std::unique_ptr<ModelRunner> runner_;
  std::map<std::array<int64_t, 3>, int64_t> text_bytes_;
  std::map<std::array<int64_t, 2>, int64_t> vision_bytes_;
};

}  // namespace vlr

#endif  // VLR_ENGINE_PLACEMENT_MEMORY_PLANNER_H_
