#include "engine/placement/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/placement/memory_watch.h"
#include "engine/runtime/arena_picture.h"
#include "multimodal/patchify.h"

namespace vlr {
namespace {

constexpr int64_t kPatchesPerToken = 4;

/// Sizes of one document.
struct Document {
  Document(const Workload& w, int64_t max_length)
      : image_tokens(w.patches_per_image / kPatchesPerToken),
        visual_tokens((w.images_per_document + w.images_per_query) * image_tokens),
        // Longer texts are cut.
        tokens(std::min(w.tokens_per_document + visual_tokens, max_length + kTailTokens)) {}
  int64_t image_tokens, visual_tokens, tokens;
};

}  // namespace

bool enough_for(const Workload& w, const Options& options, const BatchLimits& limits) {
  const Document d(w, options.max_length);
  return d.visual_tokens <= options.max_length && d.tokens <= limits.max_sequence &&
         d.visual_tokens <= limits.visual_rows &&
         (d.visual_tokens == 0 || w.patches_per_image <= limits.frame_patches);
}

Result<MemoryPlan> plan_memory(MemoryPlanner& planner, const PlacedModel& placed,
                               const Options& options, const Workload& w) {
  ModelRunner& runner = planner.runner();
  const bool gpu = runner.device().is_gpu();
  const BatchLimits& limits = placed.limits;
  const Document d(w, options.max_length);
  MemoryPlan out;
  out.cap = gpu ? options.gpu_memory : 0;
  if (d.visual_tokens > options.max_length) {
    return {Code::kInvalidArgument,
            fmt::format("workload: documents of {} visual tokens, max_length is {}",
                        d.visual_tokens, options.max_length)};
  }
  if (!enough_for(w, options, limits)) {
    const int64_t smallest =
        planner.smallest_cap([&](const BatchLimits& l) { return enough_for(w, options, l); });
    return {Code::kOutOfMemory,
            fmt::format("gpu_memory: {} bytes are too few for documents of {} tokens, {} of them "
                        "visual: there is room for {} tokens, {} visual ones and {} patches of a "
                        "frame; {}",
                        options.gpu_memory, d.tokens, d.visual_tokens, limits.max_sequence,
                        limits.visual_rows, limits.frame_patches,
                        smallest > 0 ? fmt::format("{} is the smallest cap that works", smallest)
                                     : std::string("no cap makes room for them"))};
  }

  runner.row_chunk = placed.placement.row_chunk;
  const int64_t all_tokens = w.documents * d.tokens;
  TextSizes text{.tokens = std::max(std::min(limits.tokens, all_tokens), d.tokens),
                 .sequences = std::min(w.documents, limits.sequences)};
  if (text.tokens <= RecordingLimits().max_tokens) {
    text.tokens = (text.tokens + kPaddedTo - 1) / kPaddedTo * kPaddedTo;
    text.sequences = (text.sequences + kPaddedTo - 1) / kPaddedTo * kPaddedTo;
  }
  text.sequences = std::min(text.sequences, text.tokens);
  // The features of a wave's pictures, and of the few by which it may be too large.
  text.visual_tokens =
      std::min({limits.visual_rows, w.documents * d.visual_tokens,
                kWaveVisualTokens + kChunkMedia * d.image_tokens + d.visual_tokens});
  int64_t patches = 0;
  if (d.visual_tokens > 0) {
    patches = std::max(w.patches_per_image,
                       std::min(limits.patches, text.visual_tokens * kPatchesPerToken));
  }
  VLR_ASSIGN_OR_RETURN(const ScorePlan score, runner.plan_scores(text));
  RunPlan vision;
  if (patches > 0) {
    VLR_ASSIGN_OR_RETURN(vision, runner.plan_vision(patches));
  }
  const bool text_is_larger = score.total() > vision.total();
  const RunPlan& larger = text_is_larger ? score.run : vision;
  const int64_t prefix_rows = std::min(
      limits.max_prefix_rows, std::max(limits.prefix_rows, options.share_prefix ? d.tokens : 0));

  if (!gpu) {
    int64_t mapped = 0, copied = 0;
    for (const WeightSpec& weight : placed.plan) {
      const bool whole = weight.format == WeightFormat::kDense && weight.parts.size() == 1 &&
                         weight.parts[0].num_rows == weight.parts[0].shape[0];
      for (const WeightTensor& t : tensors_of(weight, planner.weight_dtype(), Device::kCpu))
        (whole ? mapped : copied) += t.shape.bytes();
    }
    out.parts = {{"weights, mapped from the checkpoint", mapped},
                 {"weights, fused or quantised copies", copied}};
  } else {
    out.parts = {{"weights", placed.weights.device - placed.weights.slots},
                 {"slots of streamed layers", placed.weights.slots},
                 {"decoded weights", planner.ring_bytes()}};
  }
  const int64_t loaded = out.total();
  const int64_t prefix_bytes = runner.prefix_row_bytes();
  out.parts.insert(
      out.parts.end(),
      {{"activations", larger.activation_bytes},
       {"workspace", larger.workspace_bytes},
       {"between layers of the GPU and the CPU", text_is_larger ? score.carried_bytes : 0},
       {"prefix keys and values", (gpu ? prefix_rows : limits.prefix_rows) * prefix_bytes},
       {"vision features", text.visual_tokens * runner.feature_row_bytes()}});
  const int64_t pixels = text.visual_tokens * kPatchesPerToken * kPatchValues,
                cached = std::min(options.vision_cache_bytes,
                                  w.documents * d.visual_tokens * runner.feature_row_bytes());
  if (!gpu) {
    out.parts.insert(out.parts.end(), {{"decoded patches", pixels}, {"vision cache", cached}});
  } else {
    out.parts.push_back({"inputs", 4 * runner.text_input_bytes(text) +
                                       2 * (patches > 0 ? runner.vision_input_bytes(patches) : 0) +
                                       kRounding});
    int64_t opening = 0;  // measuring takes no more than there is
    if (options.measure_kernels) {
      VLR_ASSIGN_OR_RETURN(opening, runner.measuring_bytes(limits.tokens, limits.patches));
      if (out.cap > 0) {
        opening = std::min(
            opening, out.cap - context_estimate() - loaded - limits.prefix_rows * prefix_bytes);
      }
    }
    opening = std::max(opening, planner.check_bytes()) + loaded + limits.prefix_rows * prefix_bytes;
    out.parts.push_back(
        {"measuring and checks, before that", std::max<int64_t>(0, opening - out.total())});
    out.parts.push_back({"CUDA context, about", context_estimate()});
    int64_t cpu_weights = 0;
    for (const WeightSpec& weight : placed.plan) {
      if (weight.place != WeightPlace::kCpuExec) continue;
      for (const WeightTensor& t : tensors_of(weight, planner.cpu_weight_dtype(), Device::kCpu))
        cpu_weights += t.shape.bytes();
    }
    out.host_parts = {
        {"streamed layers, pinned", placed.weights.streamed},
        {"disk layers, pinned", placed.weights.disk_ring},
        {"embeddings, pinned", placed.weights.host},
        {"layers computed on the CPU", cpu_weights},
        {"their activations and workspace", score.host_bytes},
        {"their prefix keys and values", prefix_rows * runner.host_prefix_row_bytes()},
        {"copies to and from them, pinned", score.pinned_bytes},
        {"decoded patches, pinned", pixels},
        {"vision cache, pinned", cached}};
  }
  for (auto* parts : {&out.parts, &out.host_parts})
    std::erase_if(*parts, [](const MemoryPlan::Part& part) { return part.bytes == 0; });

  VLR_ASSIGN_OR_RETURN(out.layers, layer_bytes(placed.plan, planner.shapes(), runner.dtype(),
                                               runner.device().kind()));
  if (w.pictures) {
    out.pictures["text"] = arena_svg(
        *score.graph, score.run,
        fmt::format("score pass: {} tokens of {} documents", text.tokens, text.sequences));
    if (patches > 0) {
      out.pictures["vision"] = arena_svg(*runner.vision_graph(), vision,
                                         fmt::format("vision tower: {} patches", patches));
    }
  }

  const Placement& p = placed.placement;
  const auto choice = [&](std::string name, std::string value) {
    out.choices.push_back({std::move(name), std::move(value)});
  };
  if (gpu) {
    if (placed.given_map) {
      choice("placement", "as the device map says");
    } else {
      choice("embeddings", p.host_embeddings || options.host_embeddings ? "host memory" : "GPU");
      if (runner.vision_graph()) choice("vision tower", p.stream_vision ? "streamed" : "GPU");
      choice("streamed decoder layers",
             fmt::format("{} of {}", p.streamed_layers, runner.num_layers()));
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
  return out;
}

}  // namespace vlr
