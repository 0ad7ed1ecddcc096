#include "engine/api/limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

namespace vlr {
namespace {

// Batches beyond a few hundred tokens gain nothing on a CPU, and larger ones fall out of its
// caches. A GPU's are as large as memory allows, up to where its kernels gain nothing more.
constexpr int64_t kCpuBatchTokens = 1024, kGpuBatchTokens = 32768;
constexpr int64_t kCpuBatchPatches = 2048, kGpuBatchPatches = 40960;
constexpr int64_t kSmallestBatch = 64;      // tokens; a cap below that is refused
constexpr int64_t kTokensPerSequence = 16;  // a batch of T tokens has at most T / 16 sequences
constexpr int64_t kCpuPrefixBytes = int64_t{16} << 20;  // at first
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max() / 4;
// Measured on an H200 with CUDA 13.0: context and cuBLASLt's kernels take 0.5 to 0.6 GB.
constexpr int64_t kContextBytes = int64_t{700} << 20;

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

}  // namespace

int64_t context_estimate() { return kContextBytes; }

Result<DType> activation_dtype(const Options& options, const DeviceSpec& device,
                               const ModelConfig& config) {
  const bool gpu = device.kind == Device::kCuda;
  if (options.dtype == "auto") {
    if (!gpu) return DType::kF32;
    return config.dtype == DType::kF16 ? DType::kF16 : DType::kBF16;
  }
  const DType wanted = options.dtype == "f32"    ? DType::kF32
                       : options.dtype == "bf16" ? DType::kBF16
                                                 : DType::kF16;
  if (gpu == (wanted != DType::kF32)) return wanted;
  return {Code::kUnimplemented,
          fmt::format("options: {} computes in {}, got dtype {}", gpu ? "a GPU" : "the CPU",
                      gpu ? "bf16 or f16" : "f32", options.dtype)};
}

GraphOptions graph_options(const Options& options, const OpenDevice& device, DType dtype,
                           QuantModes quant) {
  const auto wanted = [&](std::string_view fusion) {
    return device.kind() == Device::kCuda &&
           std::find(options.no_fuse.begin(), options.no_fuse.end(), fusion) ==
               options.no_fuse.end();
  };
  return {.dtype = dtype,
          .fuse_residual = wanted("residual"),
          .fuse_qk = wanted("qk"),
          .fuse_gelu = wanted("gelu"),
          .fuse_quantize = wanted("quantize"),
          .quant = std::move(quant)};
}

Status set_cap(OpenDevice& device, int64_t gpu_memory) {
  if (gpu_memory > 0) {
    if (gpu_memory <= kContextBytes) {
      return {Code::kOutOfMemory,
              fmt::format("gpu_memory: {} bytes, the CUDA context alone takes about {}", gpu_memory,
                          kContextBytes)};
    }
    device.budget().set_cap(gpu_memory - kContextBytes);
    return {};
  }
  VLR_ASSIGN_OR_RETURN(const OpenDevice::CardMemory card, device.card_memory());
  device.budget().set_cap(card.free / 10 * 9);
  return {};
}

Status check_impls(const ImplChoices& choices, const ModelRunner& runner) {
  std::set<std::string_view> ops;
  for (const Graph* g : {&runner.score_graph(), &runner.prefix_graph(), runner.vision_graph()}) {
    if (!g) continue;
    for (const Node& node : g->nodes()) ops.insert(node.op);
  }
  // What some ops are made of can be chosen too.
  if (ops.contains("linear_weight_only")) ops.insert({"dequantize", "linear"});
  if (ops.contains("linear_w8a8")) ops.insert({"linear", "quantize_rows"});
  for (const auto& [op, impl] : choices) {
    if (ops.contains(op)) continue;
    std::string names;
    for (std::string_view name : ops) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    return {Code::kInvalidArgument,
            fmt::format("impl: the model runs no op '{}'; it runs {}", op, names)};
  }
  return {};
}

Result<BatchLimits> choose_limits(const Options& options, ModelRunner& runner) {
  const bool gpu = runner.device().is_gpu();
  const bool vision = runner.vision_graph() != nullptr;
  BatchLimits out;
  out.tokens = options.batch_tokens > 0 ? options.batch_tokens
               : gpu                    ? kGpuBatchTokens
                                        : kCpuBatchTokens;
  out.sequences = std::max<int64_t>(1, out.tokens / kTokensPerSequence);
  out.patches = gpu ? kGpuBatchPatches : kCpuBatchPatches;
  const int64_t row_bytes = runner.prefix_row_bytes();
  // A run that cannot be planned (an implementation that does not exist, say) is an error now.
  if (const auto plan = runner.plan_scores({.tokens = 1}); !plan) return plan.error();
  if (vision) {
    if (const auto plan = runner.plan_vision(4); !plan) return plan.error();
  }
  if (!gpu) {
    out.visual_rows = out.max_prefix_rows = out.max_sequence = kUnlimited;
    out.prefix_rows = std::min(kCpuPrefixBytes, options.prefix_cache_bytes) / row_bytes;
    return out;
  }

  const MemoryBudget& budget = runner.device().budget();
  const auto text_bytes = [&](int64_t tokens, int64_t sequences) {
    const TextSizes sizes{.tokens = tokens, .sequences = sequences};
    const auto plan = runner.plan_scores(sizes);
    // Score and prefix passes have two sets of inputs each.
    return plan ? plan->total() + 4 * runner.text_input_bytes(sizes) : kUnlimited;
  };
  const auto vision_bytes = [&](int64_t patches) {
    const auto plan = runner.plan_vision(patches);
    return plan ? plan->total() : kUnlimited;
  };
  const int64_t room = budget.cap() - budget.used();
  const int64_t smallest = text_bytes(kSmallestBatch, 1) +
                           (vision ? vision_bytes(1024) + 2 * runner.vision_input_bytes(1024) +
                                         256 * runner.feature_row_bytes()
                                   : 0);
  if (room < smallest) {
    return {Code::kOutOfMemory,
            fmt::format("gpu_memory: {} bytes are too few, {} is the smallest cap that works: "
                        "context {}, weights {}, smallest batch {}",
                        budget.cap() + kContextBytes, budget.used() + smallest + kContextBytes,
                        kContextBytes, budget.used(), smallest)};
  }
  int64_t rest = room;
  out.prefix_rows = std::min(options.prefix_cache_bytes, (room - smallest) / 8) / row_bytes;
  rest -= out.prefix_rows * row_bytes;
  if (vision) {
    const int64_t bytes = runner.feature_row_bytes();
    out.visual_rows = std::min(4 * kWaveVisualTokens, std::max<int64_t>(256, rest / 5 / bytes));
    rest -= out.visual_rows * bytes;
    // Inputs stay beside whatever pass runs, so the tower's count against the text's arena too.
    out.patches =
        4 * largest(256, out.patches / 4, [&](int64_t quads) {
          return vision_bytes(4 * quads) + 2 * runner.vision_input_bytes(4 * quads) <= rest * 3 / 4;
        });
    out.patches = std::max<int64_t>(out.patches, 1024);
    rest -= 2 * runner.vision_input_bytes(out.patches);
  }
  out.tokens = largest(1, out.tokens, [&](int64_t tokens) {
    return text_bytes(tokens, std::max<int64_t>(1, tokens / kTokensPerSequence)) <= rest;
  });
  out.tokens = std::max(out.tokens, int64_t{1});
  out.sequences = std::max<int64_t>(1, out.tokens / kTokensPerSequence);
  const int64_t longest = std::max<int64_t>(out.tokens, options.max_length + 64);
  out.max_sequence =
      largest(1, longest, [&](int64_t tokens) { return text_bytes(tokens, 1) <= rest; });
  out.max_prefix_rows = std::max(out.prefix_rows, rest / 4 / row_bytes);
  return out;
}

}  // namespace vlr
