#include "engine/placement/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/placement/memory_watch.h"
#include "engine/runtime/arena_picture.h"
#include "engine/runtime/host_pool.h"
#include "engine/runtime/purposes.h"
#include "engine/tasks/task.h"
#include "engine/weights/weight_store.h"
#include "kernels/core/format_bytes.h"
#include "kernels/core/integer.h"
#include "multimodal/patchify.h"

namespace vlr {
namespace {

/// Sizes of one document.
struct Document {
  Document(const Workload& w, int64_t max_length)
      : image_tokens(w.patches_per_image / kPatchesPerToken),
        visual_tokens((w.images_per_document + w.images_per_query) * image_tokens),
        // Longer texts are cut.
        tokens(std::min(w.tokens_per_document + visual_tokens - kTailBound, max_length) +
               kTailBound) {}
  int64_t image_tokens, visual_tokens, tokens;
};

/// What passes of the workload are planned with.
struct Passes {
  TextSizes text;
  int64_t patches = 0;  ///< of a vision batch; 0: no pictures
  PassPlan score;
  RunPlan vision;
  bool text_is_larger() const { return score.total() > vision.total(); }
  const RunPlan& larger() const { return text_is_larger() ? score.run : vision; }
  int64_t arena_bytes() const {
    return larger().total() + (text_is_larger() ? score.carried_bytes : 0);
  }
};

}  // namespace

bool enough_for(const Workload& w, const Options& options, const BatchLimits& limits) {
  const Document d(w, options.max_length);
  return d.visual_tokens <= options.max_length && d.tokens <= limits.max_sequence &&
         d.visual_tokens <= limits.visual_rows &&
         (d.visual_tokens == 0 || w.patches_per_image <= limits.frame_patches);
}

namespace {

Status too_little(MemoryPlanner& planner, const BatchLimits& limits, const Options& options,
                  const Workload& w, const Document& d) {
  const int64_t smallest =
      planner.smallest_cap([&](const BatchLimits& l) { return enough_for(w, options, l); });
  return {Code::kOutOfMemory,
          fmt::format("gpu_memory: {} is too little for documents of {} tokens, {} of them "
                      "visual: there is room for {} tokens, {} visual ones and {} patches of a "
                      "frame; {}",
                      format_bytes(options.gpu_memory), d.tokens, d.visual_tokens,
                      limits.max_sequence, limits.visual_rows, limits.frame_patches,
                      smallest > 0 ? fmt::format("{} is the smallest cap that works",
                                                 format_bytes_up(smallest))
                                   : std::string("no cap makes room for them"))};
}

/// The largest passes that score() makes of such work within the limits.
Result<Passes> plan_passes(ModelRunner& runner, const BatchLimits& limits, const Workload& w,
                           const Document& d) {
  Passes out;
  const int64_t all_tokens = w.documents * d.tokens;
  out.text = {.tokens = std::max(std::min(limits.tokens, all_tokens), d.tokens),
              .sequences = std::min(w.documents, limits.sequences)};
  out.text = runner.score().size_class(out.text);
  out.text.sequences = std::min(out.text.sequences, out.text.tokens);
  // The features of a wave's pictures, and of the few by which it may be too large.
  out.text.visual_tokens =
      std::min({limits.visual_rows, w.documents * d.visual_tokens,
                kWaveVisualTokens + kChunkMedia * d.image_tokens + d.visual_tokens});
  VLR_ASSIGN_OR_RETURN(out.score, runner.score().plan(out.text));
  if (d.visual_tokens > 0 && runner.vision()) {
    out.patches = std::max(w.patches_per_image,
                           std::min(limits.patches, out.text.visual_tokens * kPatchesPerToken));
    VLR_ASSIGN_OR_RETURN(out.vision, runner.vision()->plan(out.patches));
  }
  return out;
}

/// Where the CPU finds weights, by whether they are used where the checkpoint's files are mapped.
void add_cpu_weights(const WeightPlan& plan, bool all, DType dtype,
                     std::vector<MemoryPlan::Part>& parts) {
  int64_t mapped = 0, copied = 0;
  for (const WeightSpec& weight : plan) {
    if (!all && weight.place != WeightPlace::kCpuExec) continue;
    for (const WeightTensor& t : tensors_of(weight, dtype, Device::kCpu))
      (is_mapped(weight) ? mapped : copied) += t.shape.bytes();
  }
  parts.push_back({std::string(purposes::kMappedWeights), mapped});
  parts.push_back({std::string(purposes::kCopiedWeights), copied});
}

/// Of a GPU, once its weights are loaded: measuring takes no more than there is, and checks come
/// before any pass.
Result<int64_t> opening_bytes(MemoryPlanner& planner, const BatchLimits& limits,
                              const Options& options, int64_t loaded) {
  int64_t measuring = 0;
  if (options.measure_kernels) {
    VLR_ASSIGN_OR_RETURN(measuring,
                         planner.runner().measuring_bytes(limits.tokens, limits.patches));
    if (options.gpu_memory > 0)
      measuring = std::min(measuring, options.gpu_memory - context_estimate() - loaded);
  }
  return std::max(measuring, planner.check_bytes()) + loaded;
}

void add_choices(const PlacedModel& placed, const Options& options, ModelRunner& runner,
                 const Passes& passes, int64_t layers, MemoryPlan& out) {
  const Placement& p = placed.placement;
  const BatchLimits& limits = placed.limits;
  const auto choice = [&](std::string name, std::string value) {
    out.choices.push_back({std::move(name), std::move(value)});
  };
  if (runner.device().is_gpu()) {
    if (placed.given_map) {
      choice("placement", "as the device map says");
    } else {
      choice("embeddings", p.host_embeddings || options.host_embeddings ? "host memory" : "GPU");
      if (runner.vision()) choice("vision tower", p.stream_vision ? "streamed" : "GPU");
      choice("streamed decoder layers", fmt::format("{} of {}", p.streamed_layers, layers));
    }
    if (placed.weights.streamed + placed.weights.disk > 0) {
      choice("streamed", p.by_matrix ? "product by product" : "layer by layer");
      choice("copies of a text pass",
             fmt::format("about {:.0f} ms", placed.transfer_seconds * 1e3));
      choice("work of a full batch",
             fmt::format("about {:.0f} ms on an H200", placed.compute_seconds * 1e3));
    }
    if (placed.num_host_layers > 0) {
      choice("host layers",
             fmt::format("streaming expected {:.0f} ms a batch, cpu-exec {:.0f} ms",
                         placed.streaming_seconds * 1e3, placed.cpu_exec_seconds * 1e3));
    }
    choice("row chunk", p.row_chunk > 0 ? fmt::format("{} rows", p.row_chunk) : "whole batches");
    choice("longest document", fmt::format("{} tokens", limits.max_sequence));
    choice("visual tokens at once", std::to_string(limits.visual_rows));
  }
  choice("batch", fmt::format("at most {} tokens, {} documents", limits.tokens, limits.sequences));
  choice("arena", fmt::format("{} of activations, {} of workspace",
                              format_bytes(passes.larger().activation_bytes),
                              format_bytes(passes.larger().workspace_bytes)));
}

void add_pictures(ModelRunner& runner, const Passes& passes, MemoryPlan& out) {
  out.pictures["text"] = arena_svg(*passes.score.graph, passes.score.run,
                                   fmt::format("score pass: {} tokens of {} documents",
                                               passes.text.tokens, passes.text.sequences));
  if (passes.patches > 0) {
    out.pictures["vision"] = arena_svg(runner.vision()->graph(), passes.vision,
                                       fmt::format("vision tower: {} patches", passes.patches));
  }
}

}  // namespace

Result<MemoryPlan> plan_memory(MemoryPlanner& planner, const PlacedModel& placed,
                               const Options& options, const Workload& w) {
  ModelRunner& runner = planner.runner();
  const bool gpu = runner.device().is_gpu();
  const BatchLimits& limits = placed.limits;
  const Document d(w, options.max_length);
  if (d.visual_tokens > options.max_length) {
    return {Code::kInvalidArgument,
            fmt::format("workload: documents of {} visual tokens, max_length is {}",
                        d.visual_tokens, options.max_length)};
  }
  if (!enough_for(w, options, limits)) return too_little(planner, limits, options, w, d);
  runner.passes().row_chunk = placed.placement.row_chunk;
  VLR_ASSIGN_OR_RETURN(const Passes passes, plan_passes(runner, limits, w, d));
  const int64_t prefix_rows =
      gpu ? std::min(limits.max_prefix_rows,
                     std::max(limits.prefix_rows, options.share_prefix ? d.tokens : 0))
          : limits.prefix_rows;
  const int64_t feature_bytes = passes.text.visual_tokens * runner.feature_row_bytes(),
                pixels = passes.text.visual_tokens * kPatchesPerToken * kPatchValues,
                image_pages =
                    ceil_div(d.image_tokens * runner.feature_row_bytes(), PagePool::kPageBytes),
                cached = PagePool::slab_bytes(
                    (w.documents * w.images_per_document + w.images_per_query) * image_pages,
                    options.vision_cache_bytes),
                inputs = runner.text_input_bytes(passes.text) +
                         (passes.patches > 0 ? runner.vision()->input_bytes(passes.patches) : 0) +
                         kRounding;

  MemoryPlan out;
  out.cap = gpu ? options.gpu_memory : 0;
  const auto add = [](std::vector<MemoryPlan::Part>& parts, std::string_view name, int64_t bytes) {
    parts.push_back({std::string(name), bytes});
  };
  if (gpu) {
    add(out.parts, purposes::kWeights, placed.weights.device);
    add(out.parts, purposes::kDecodedWeights, planner.ring_bytes());
    add(out.host_parts, purposes::kWeights, placed.weights.streamed + placed.weights.host);
    add(out.host_parts, purposes::kDiskLayers, placed.weights.disk_ring);
  }
  add_cpu_weights(placed.plan, !gpu, planner.cpu_weight_dtype(), gpu ? out.host_parts : out.parts);
  const int64_t loaded = out.total() + limits.prefix_rows * runner.prefixes().row_bytes();
  add(out.parts, purposes::kArena, passes.arena_bytes());
  add(out.parts, purposes::kPrefixes, prefix_rows * runner.prefixes().row_bytes());
  add(out.parts, purposes::kFeatures, feature_bytes);
  add(out.parts, purposes::kInputs, inputs);
  if (gpu) {
    VLR_ASSIGN_OR_RETURN(const int64_t opening, opening_bytes(planner, limits, options, loaded));
    add(out.parts, purposes::kMeasuring, std::max<int64_t>(0, opening - out.total()));
    add(out.parts, purposes::kContext, context_estimate());
    add(out.host_parts, purposes::kArena, passes.score.host_bytes);
    add(out.host_parts, purposes::kPrefixes, prefix_rows * runner.prefixes().host_row_bytes());
    add(out.host_parts, purposes::kInputs, inputs + passes.score.pinned_bytes);
  }
  std::vector<MemoryPlan::Part>& beside = gpu ? out.host_parts : out.parts;
  add(beside, purposes::kPatches, pixels);
  add(beside, purposes::kVisionCache, cached);
  for (auto* parts : {&out.parts, &out.host_parts})
    std::erase_if(*parts, [](const MemoryPlan::Part& part) { return part.bytes == 0; });

  VLR_ASSIGN_OR_RETURN(out.layers, layer_bytes(placed.plan, planner.shapes(), runner.dtype(),
                                               runner.device().kind()));
  if (w.pictures) add_pictures(runner, passes, out);
  add_choices(placed, options, runner, passes, planner.num_layers(), out);
  return out;
}

}  // namespace vlr
