#include "engine/placement/memory_planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "engine/passes/self_check.h"
#include "engine/tasks/task.h"
#include "kernels/core/format_bytes.h"
#include "kernels/core/integer.h"
#include "kernels/cuda/weight_ring.h"
#include "model/weight_plan.h"
#include "multimodal/patchify.h"

namespace vlr {
namespace {

// Batches beyond a few hundred tokens gain nothing on a CPU, and larger ones fall out of its
// caches. A GPU's are as large as memory allows, up to where its kernels gain nothing more.
constexpr int64_t kCpuBatchTokens = 1024, kGpuBatchTokens = 32768;
constexpr int64_t kCpuBatchPatches = 2048, kGpuBatchPatches = 40960;
constexpr int64_t kSmallestBatch = 64;      // tokens; a cap below that is refused
constexpr int64_t kSmallestFrame = 1024;    // patches, likewise
constexpr int64_t kTokensPerSequence = 16;  // a batch of T tokens has at most T / 16 sequences
constexpr int64_t kCpuPrefixBytes = int64_t{16} << 20;  // at first
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max() / 4;
// Measured on an H200 with CUDA 13.0: context and cuBLASLt's kernels take 0.5 to 0.6 GB.
constexpr int64_t kContextBytes = int64_t{700} << 20;
// An H200's products and its bus, as measured. What has a slower bus has slower products too.
constexpr double kFlops = 650e12, kFlops8 = 1200e12, kBusBytes = 55e9;
// A thread's products with AVX-512 (linear/blocked in docs/benchmarking.md); fewer where many cores
// share power and memory or vectors are narrower.
constexpr double kThreadFlops = 100e9;
// What an NVMe disk of PCIe 4 reads, by its data sheet.
constexpr double kDiskBytes = 7e9;
// Chunks of rows: the products run at full speed with 2,048 rows, smaller ones save memory only.
constexpr int64_t kChunks[] = {8192, 4096, 2048}, kSmallChunks[] = {1024, 512};

/// The largest n in [low, high] for which fits(n), or low - 1. fits() is monotone.
template <class Fits>
int64_t largest(int64_t low, int64_t high, const Fits& fits) {
  --low;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

/// Bytes of a place in which weights are decoded for the model's largest product; 0: none is.
int64_t ring_place_bytes(const WeightPlan& plan, const QuantModes& modes, DType dtype) {
  int64_t largest = 0;
  for (const WeightSpec& spec : plan) {
    const auto it = modes.find(spec.name);
    if (it == modes.end() || spec.place == WeightPlace::kCpuExec) continue;
    if (is_w8a8(it->second) && !sets_outliers_apart(it->second)) continue;
    largest = std::max(largest, spec.shape[0] * spec.shape[1] * dtype_bytes(dtype));
  }
  return std::min(largest, cuda::kWeightRingPlace);
}

}  // namespace

int64_t context_estimate() { return kContextBytes; }

Result<int64_t> cap_of(OpenDevice& device, int64_t gpu_memory) {
  if (gpu_memory > 0) return gpu_memory - kContextBytes;
  VLR_ASSIGN_OR_RETURN(const OpenDevice::CardMemory card, device.card_memory());
  return card.free / 10 * 9;
}

Result<std::unique_ptr<MemoryPlanner>> MemoryPlanner::create(const Options& options,
                                                             const ModelConfig& config,
                                                             WeightPlan plan,
                                                             const GraphOptions& graph,
                                                             OpenDevice& device) {
  std::unique_ptr<MemoryPlanner> p(new MemoryPlanner(options, config, graph, device));
  if (device.is_gpu()) {
    if (!options.device_map.empty() && options.device_map != "auto") {
      VLR_ASSIGN_OR_RETURN(p->map_, DeviceMap::parse(options.device_map));
      p->given_map_ = true;
    }
  } else if (!options.device_map.empty() && options.device_map != "auto") {
    return {Code::kInvalidArgument,
            "options: a device_map places weights for a GPU, on the CPU all "
            "of them are in host memory"};
  }
  p->plan_ = std::move(plan);
  if (p->given_map_) VLR_RETURN_IF_ERROR(p->map_.apply(p->plan_));
  const std::set<int64_t> host_layers = cpu_exec_layers(p->plan_);
  p->ring_bytes_ = device.plan_ring(ring_place_bytes(p->plan_, graph.quant, graph.dtype));
  for (const WeightSpec& weight : p->plan_) {
    const bool on_cpu = weight.place == WeightPlace::kCpuExec;
    for (const WeightTensor& t :
         tensors_of(weight, on_cpu ? p->cpu_weight_dtype() : p->weight_dtype(),
                    on_cpu ? Device::kCpu : device.kind()))
      p->shapes_[t.name] = t.shape;
  }
  VLR_ASSIGN_OR_RETURN(p->runner_, ModelRunner::create(config, p->shapes(), device, graph, {},
                                                       nullptr, host_layers));
  // A run that cannot be planned (an implementation that does not exist, say) is an error now.
  VLR_ASSIGN_OR_RETURN(const auto text, p->runner_->score().plan({.tokens = kCheckedRows}));
  if (device.is_gpu())
    p->check_bytes_ = vlr::check_bytes(p->plan_, graph.dtype, text.run.workspace_bytes);
  if (p->runner_->vision()) {
    if (const auto vision = p->runner_->vision()->plan(kPatchesPerToken); !vision)
      return vision.error();
  }
  // What a row of the largest region takes, and a token in a pass.
  const TextConfig& t = config.text_config;
  p->region_row_bytes_ = (2 * t.intermediate_size + t.hidden_size) * dtype_bytes(graph.dtype);
  const double q = static_cast<double>(t.num_attention_heads * t.head_dim),
               kv = static_cast<double>(t.num_key_value_heads * t.head_dim);
  p->token_flops_ = 2 * static_cast<double>(t.num_hidden_layers * t.hidden_size) *
                    (2 * q + 2 * kv + 3 * static_cast<double>(t.intermediate_size));
  for (const auto& [name, mode] : graph.quant) {
    if (name.starts_with(weights::kTextLayers)) p->flops_ = is_w8a8(mode) ? kFlops8 : kFlops;
  }
  return p;
}

WeightLookup MemoryPlanner::shapes() const {
  return [this](std::string_view name) -> Result<ConstTensor> {
    const auto it = shapes_.find(name);
    if (it == shapes_.end()) return {Code::kNotFound, fmt::format("no weight {}", name)};
    return it->second;
  };
}

/// The weight plan of a step.
Result<WeightPlan> MemoryPlanner::place(const Placement& p) const {
  WeightPlan plan = plan_;
  if (!device_.is_gpu()) return plan;
  if (given_map_) {
    VLR_RETURN_IF_ERROR(map_.apply(plan, p.by_matrix));
  } else {
    constexpr auto kToHost = WeightPlace::kStreamed;
    DeviceMap map;
    if (p.host_embeddings) VLR_RETURN_IF_ERROR(map.add("embed_tokens", kToHost));
    if (p.stream_vision) VLR_RETURN_IF_ERROR(map.add("vision", kToHost));
    const int64_t layers = config_.text_config.num_hidden_layers, n = p.streamed_layers;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t layer = (2 * i + 1) * layers / (2 * n);
      VLR_RETURN_IF_ERROR(map.add(fmt::format("layers.{}", layer), kToHost));
    }
    VLR_RETURN_IF_ERROR(map.apply(plan, p.by_matrix));
  }
  for (WeightSpec& spec : plan) {
    if (options_.host_embeddings && spec.name == weights::kEmbedTokens)
      spec.place = WeightPlace::kHost;
  }
  return plan;
}

/// Chunks take two percent of the cap, or as little as keeps their products fast.
int64_t MemoryPlanner::chunk_for(int64_t cap) const {
  if (!device_.is_gpu()) return std::end(kChunks)[-1];
  for (const int64_t chunk : kChunks) {
    if (chunk * region_row_bytes_ <= cap / 50) return chunk;
  }
  return std::end(kChunks)[-1];
}

int64_t MemoryPlanner::text_bytes(int64_t row_chunk, int64_t tokens, int64_t sequences) {
  const auto [it, is_new] =
      text_bytes_.try_emplace(std::array{row_chunk, tokens, sequences}, kUnlimited);
  if (!is_new) return it->second;
  runner_->passes().row_chunk = row_chunk;
  const TextSizes sizes = runner_->score().size_class({.tokens = tokens, .sequences = sequences});
  if (const auto plan = runner_->score().plan(sizes))
    it->second = plan->total() + runner_->text_input_bytes(sizes);
  return it->second;
}

int64_t MemoryPlanner::vision_bytes(int64_t row_chunk, int64_t patches) {
  const auto [it, is_new] = vision_bytes_.try_emplace(std::array{row_chunk, patches}, kUnlimited);
  if (!is_new) return it->second;
  runner_->passes().row_chunk = row_chunk;
  if (const auto plan = runner_->vision()->plan(patches)) it->second = plan->total();
  return it->second;
}

/// Of a document alone, beside the weights.
int64_t MemoryPlanner::needed(int64_t row_chunk, const Wants& w) {
  // The checks of quantised weights come before any pass.
  const int64_t text = std::max(text_bytes(row_chunk, w.sequence, 1), check_bytes_);
  if (!runner_->vision()) return text;
  // Inputs stay beside whatever pass runs, so the tower's count against the text's arena too.
  return std::max(text, vision_bytes(row_chunk, w.patches)) +
         runner_->vision()->input_bytes(w.patches) + w.visual_rows * runner_->feature_row_bytes();
}

/// Sizes of passes in what the weights leave, or nothing if the smallest do not fit. First comes
/// what a single document may need: all that the options allow, else fewer features, else fewer
/// tokens, else smaller pictures, so that more room never means less of any. Then everything grows
/// with what is left.
std::optional<BatchLimits> MemoryPlanner::limits_in(int64_t room, int64_t row_chunk) {
  const Wants wants = wants_of_options();
  const bool vision = runner_->vision() != nullptr;
  const int64_t feature_bytes = runner_->feature_row_bytes();
  // A row has a part on either side; the larger one says how many there may be.
  const int64_t prefix_bytes =
      std::max(runner_->prefixes().row_bytes(), runner_->prefixes().host_row_bytes());
  Wants w = wants;
  const auto fits = [&] { return needed(row_chunk, w) <= room; };
  if (!fits()) {
    const int64_t least = w.patches / kPatchesPerToken;
    w.visual_rows = std::max(least, largest(least, wants.visual_rows, [&](int64_t rows) {
                               return needed(row_chunk, {w.sequence, w.patches, rows}) <= room;
                             }));
  }
  // What the tower's pass over the largest picture takes anyway is there for text.
  const auto longest_within = [&](int64_t bytes) {
    return std::max(kSmallestBatch,
                    largest(kSmallestBatch + 1, wants.sequence, [&](int64_t tokens) {
                      return text_bytes(row_chunk, tokens, 1) <= bytes;
                    }));
  };
  if (!fits()) {
    const int64_t beside =
        vision ? runner_->vision()->input_bytes(w.patches) + w.visual_rows * feature_bytes : 0;
    w.sequence =
        longest_within(std::max(room - beside, vision ? vision_bytes(row_chunk, w.patches) : 0));
  }
  if (!fits() && vision) {
    const auto with_frames = [&](int64_t quads) {
      const int64_t patches = kPatchesPerToken * quads;
      return Wants{.sequence = longest_within(vision_bytes(row_chunk, patches)),
                   .patches = patches,
                   .visual_rows = quads};
    };
    w = with_frames(std::max(
        kSmallestFrame / kPatchesPerToken,
        largest(kSmallestFrame / kPatchesPerToken, w.patches / kPatchesPerToken,
                [&](int64_t quads) { return needed(row_chunk, with_frames(quads)) <= room; })));
  }
  if (!fits()) return std::nullopt;

  BatchLimits out;
  int64_t rest = room;
  const int64_t more = room - needed(row_chunk, w);
  const int64_t prefix_room = std::min(4 * options_.prefix_cache_bytes, more / 8);
  out.max_prefix_rows = prefix_room / prefix_bytes;
  out.prefix_rows = std::min(options_.prefix_cache_bytes, prefix_room) / prefix_bytes;
  rest -= out.max_prefix_rows * prefix_bytes;
  if (vision) {
    const int64_t most = w.visual_rows + (rest - needed(row_chunk, w)) / feature_bytes;
    out.visual_rows =
        std::clamp(std::min(rest / 5 / feature_bytes, 4 * kWaveVisualTokens), w.visual_rows, most);
    rest -= out.visual_rows * feature_bytes;
    const auto patches_fit = [&](int64_t quads) {
      const int64_t patches = kPatchesPerToken * quads,
                    inputs = runner_->vision()->input_bytes(patches);
      return vision_bytes(row_chunk, patches) + inputs <= rest * 3 / 4 &&
             text_bytes(row_chunk, w.sequence, 1) + inputs <= rest;
    };
    const int64_t quads = w.patches / kPatchesPerToken;
    out.patches =
        kPatchesPerToken *
        std::max(quads, largest(quads + 1, std::max(quads, kGpuBatchPatches / kPatchesPerToken),
                                patches_fit));
    out.frame_patches = out.patches;
    rest -= runner_->vision()->input_bytes(out.patches);
  }
  const int64_t budget = batch_budget(kGpuBatchTokens);
  out.tokens = std::max<int64_t>(
      1, largest(1, budget, [&](int64_t tokens) {
        return text_bytes(row_chunk, tokens, std::max<int64_t>(1, tokens / kTokensPerSequence)) <=
               rest;
      }));
  out.sequences = std::max<int64_t>(1, out.tokens / kTokensPerSequence);
  out.max_sequence = largest(w.sequence, std::max(out.tokens, wants.sequence), [&](int64_t tokens) {
    return text_bytes(row_chunk, tokens, 1) <= rest;
  });
  return out;
}

/// What the longest document and the largest pictures of the options need.
MemoryPlanner::Wants MemoryPlanner::wants_of_options() const {
  Wants w{.sequence = options_.max_length + kTailBound};
  if (!runner_->vision()) return w;
  w.patches = std::max(kSmallestFrame,
                       round_up(options_.max_pixels / (kPatchSize * kPatchSize), kPatchesPerToken));
  w.visual_rows =
      std::max(w.patches / kPatchesPerToken, std::min(options_.max_length, 4 * kWaveVisualTokens));
  return w;
}

/// Tokens of a batch: what the caller wants; what a preset allows, within what gains something.
int64_t MemoryPlanner::batch_budget(int64_t usual) const {
  if (options_.batch_tokens == 0) return usual;
  return options_.preset.empty() ? options_.batch_tokens : std::min(options_.batch_tokens, usual);
}

BatchLimits MemoryPlanner::cpu_limits() const {
  BatchLimits out;
  out.tokens = batch_budget(kCpuBatchTokens);
  out.sequences = std::max<int64_t>(1, out.tokens / kTokensPerSequence);
  out.patches = kCpuBatchPatches;
  out.frame_patches = out.visual_rows = out.max_prefix_rows = out.max_sequence = kUnlimited;
  out.prefix_rows =
      std::min(kCpuPrefixBytes, options_.prefix_cache_bytes) / runner_->prefixes().row_bytes();
  return out;
}

/// Every step, in order.
std::vector<Placement> MemoryPlanner::placements(int64_t cap) const {
  const int64_t chunk = options_.row_chunk > 0 ? options_.row_chunk
                        : options_.on_value    ? 0  // who looks wants whole values
                                               : chunk_for(cap);
  std::vector<Placement> out;
  Placement p{.row_chunk = chunk};
  out.push_back(p);
  if (!given_map_) {
    p.host_embeddings = true;
    out.push_back(p);
    if (runner_->vision()) {
      p.stream_vision = true;
      out.push_back(p);
    }
    const int64_t layers = config_.text_config.num_hidden_layers;
    // Two layers' worth of memory are the slots.
    for (p.streamed_layers = std::min<int64_t>(3, layers); p.streamed_layers < layers;
         ++p.streamed_layers)
      out.push_back(p);
    out.push_back(p);
  }
  p.by_matrix = true;
  out.push_back(p);
  if (chunk == 0 || options_.row_chunk > 0) return out;
  for (const int64_t small : kSmallChunks) {
    p.row_chunk = small;
    out.push_back(p);
  }
  return out;
}

Result<PlacedModel> MemoryPlanner::choose(int64_t cap) {
  PlacedModel best;
  best.given_map = given_map_;
  if (!device_.is_gpu()) {
    best.plan = plan_;
    best.limits = cpu_limits();
    best.placement.row_chunk = placements(cap).front().row_chunk;
    return best;
  }
  const Wants wants = wants_of_options();
  // Larger caps never have room for less: what documents may need comes before speed.
  std::tuple<bool, int64_t, int64_t, int64_t> best_room;
  double best_rate = 0;
  for (const Placement& p : placements(cap)) {
    VLR_ASSIGN_OR_RETURN(WeightPlan plan, place(p));
    const DeviceWeightBytes bytes = device_weight_bytes(plan, graph_.dtype);
    const int64_t room = cap - ring_bytes_ - bytes.device - kRounding;
    const std::optional<BatchLimits> limits =
        room > 0 ? limits_in(room, p.row_chunk) : std::nullopt;
    if (!limits) continue;
    const DeviceWeightBytes text = layer_weight_bytes(plan);
    const double transfer = std::max(static_cast<double>(text.streamed + text.disk) / kBusBytes,
                                     static_cast<double>(text.disk) / kDiskBytes),
                 compute = static_cast<double>(limits->tokens) * token_flops_ / flops_;
    const bool comfortable =
        limits->max_sequence >= wants.sequence && limits->visual_rows >= wants.visual_rows &&
        limits->patches >= wants.patches &&
        limits->tokens >= (options_.preset.empty() ? options_.batch_tokens : 0);
    const std::tuple room_for(comfortable, std::min(limits->patches, wants.patches),
                              std::min(limits->max_sequence, wants.sequence),
                              std::min(limits->visual_rows, wants.visual_rows));
    const double rate = static_cast<double>(limits->tokens) / std::max(transfer, compute);
    if (room_for > best_room || (room_for == best_room && rate > 1.02 * best_rate)) {
      best_room = room_for;
      best_rate = rate;
      best.plan = std::move(plan);
      best.placement = p;
      best.weights = bytes;
      best.limits = *limits;
      best.transfer_seconds = transfer;
      best.compute_seconds = compute;
    }
    if (std::get<0>(best_room) && best.compute_seconds >= best.transfer_seconds) break;
  }
  if (best_rate > 0) {
    estimate_host_layers(best);
    return best;
  }

  // What is smallest is what has most on the host and the smallest chunks.
  const Placement last = placements(cap).back();
  VLR_ASSIGN_OR_RETURN(const WeightPlan plan, place(last));
  const int64_t weights = device_weight_bytes(plan, graph_.dtype).device + ring_bytes_ + kRounding;
  const Wants least{.sequence = kSmallestBatch,
                    .patches = kSmallestFrame,
                    .visual_rows = kSmallestFrame / kPatchesPerToken};
  const int64_t batch = needed(last.row_chunk, least);
  return {Code::kOutOfMemory,
          fmt::format("{}: {} is too little, {} is the smallest cap that works: "
                      "context {}, weights {}, smallest batch {}",
                      options_.gpu_memory > 0 ? "gpu_memory" : "free memory of the GPU",
                      format_bytes(cap + kContextBytes),
                      format_bytes_up(kContextBytes + weights + batch), format_bytes(kContextBytes),
                      format_bytes(weights), format_bytes(batch))};
}

int64_t MemoryPlanner::smallest_cap(const std::function<bool(const BatchLimits&)>& enough) {
  constexpr int64_t kStep = int64_t{16} << 20, kMost = int64_t{1} << 40;
  const auto works = [&](int64_t cap) {
    const auto placed = choose(cap - kContextBytes);
    return placed && enough(placed->limits);
  };
  int64_t high = kContextBytes / kStep * 2;
  while (high * kStep < kMost && !works(high * kStep)) high *= 2;
  if (high * kStep >= kMost) return 0;
  int64_t low = high / 2;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (works(middle * kStep) ? high : low) = middle;
  }
  return high * kStep;
}

/// Copies hide behind a batch's work on the GPU; what the CPU computes the GPU waits for, and for
/// the residual stream on its way there and back.
void MemoryPlanner::estimate_host_layers(PlacedModel& placed) const {
  WeightPlan host;
  for (const WeightSpec& spec : placed.plan) {
    if (spec.place != WeightPlace::kStreamed && spec.place != WeightPlace::kCpuExec) continue;
    if (!spec.name.starts_with(weights::kTextLayers)) continue;
    host.push_back(spec);
    host.back().place = WeightPlace::kCpuExec;
  }
  const std::set<int64_t> layers = cpu_exec_layers(host);
  for (WeightSpec& spec : host) spec.place = WeightPlace::kStreamed;
  int64_t crossings = 0;
  for (const int64_t layer : layers) crossings += layers.contains(layer - 1) ? 0 : 2;
  const TextConfig& t = config_.text_config;
  const auto tokens = static_cast<double>(placed.limits.tokens);
  placed.num_host_layers = std::ssize(layers);
  placed.streaming_seconds =
      std::max(0.0, static_cast<double>(layer_weight_bytes(host).streamed) / kBusBytes -
                        tokens * token_flops_ / flops_);
  placed.cpu_exec_seconds =
      tokens * token_flops_ * static_cast<double>(layers.size()) /
          static_cast<double>(t.num_hidden_layers) /
          (kThreadFlops * device_.context().threads->num_threads()) +
      tokens * static_cast<double>(crossings * t.hidden_size * dtype_bytes(graph_.dtype)) /
          kBusBytes;
}

DeviceWeightBytes MemoryPlanner::layer_weight_bytes(const WeightPlan& plan) const {
  WeightPlan layers;
  for (const WeightSpec& spec : plan) {
    if (spec.name.starts_with(weights::kTextLayers)) layers.push_back(spec);
  }
  return device_weight_bytes(layers, graph_.dtype);
}

}  // namespace vlr
