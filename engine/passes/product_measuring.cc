#include "engine/passes/product_measuring.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "engine/runtime/arena.h"
#include "engine/runtime/purposes.h"

#if VLR_WITH_CUDA
#include "kernels/cuda/blas.h"
#include "kernels/cuda/synthetic_fill.h"
#include "multimodal/patchify.h"
#endif

namespace vlr {

#if VLR_WITH_CUDA

namespace {

constexpr int64_t kSmallModelBytes = int64_t{256} << 20;
constexpr int64_t kMostScratch = int64_t{1} << 30;  // verifies thousands of rows
constexpr int64_t kMostSequences = 2048;

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

/// 128 values, evenly spread over (-1, 1), in no order. Their lowest bit is 0, so that their bytes,
/// read as codes of fp8, are no NaN either.
Status fill_random(const Buffer& b, DType dtype, const Context& ctx) {
  std::vector<uint16_t> values;
  for (int i = 0; i < cuda::kMaxSyntheticValues; ++i) {
    const float v = static_cast<float>(2 * i - 127) / 128;
    values.push_back(dtype == DType::kF16 ? f32_to_f16(v) : f32_to_bf16(v));
  }
  return cuda::fill_synthetic(reinterpret_cast<uint16_t*>(b.data()), b.size() / 2, 1, 57, values,
                              ctx.stream);
}

/// The tops of the buckets of rows up to `most`.
std::vector<int64_t> bucket_tops(int64_t most, bool coarse) {
  std::vector<int64_t> out;
  int index = 0;
  for (const int64_t bucket : cuda::Blas::buckets()) {
    if (coarse && index++ % 5 != 4 && bucket < most) continue;
    out.push_back(std::min(bucket, most));
    if (bucket >= most) break;
  }
  return out;
}

/// The first of the products that are alike: layers differ in weights only, which may have to come
/// from far.
std::set<const Node*> different_products(const Graph& graph, const RunPlan& plan) {
  std::set<const Node*> firsts;
  std::set<std::string> kinds;
  for (const Node& node : graph.nodes()) {
    if (node.op == "linear_w8a8" && graph.info(node.inputs[0]).dtype == DType::kI8)
      continue;  // no library's
    if (!node.op.starts_with("linear") && node.op != "patch_embed") continue;
    std::string kind(node.op);
    const auto add_kind = [&](Value v) {
      const Tensor t = v.defined() ? plan.tensors[static_cast<size_t>(v.id)] : Tensor{};
      kind += fmt::format(" {} {}", describe(t), t.rank > 1 ? t.stride(0) : 0);
    };
    for (const Value v : node.inputs) add_kind(v);
    add_kind(node.output);
    // Names of places tell apart what is alike in all that: epilogues.
    if (const size_t dot = node.name.rfind('.'); dot != node.name.npos)
      kind += node.name.substr(dot);
    if (kinds.insert(kind).second) firsts.insert(&node);
  }
  return firsts;
}

/// Adds the products of one graph at one size; `outputs` is the most values that one of them makes.
Status add_run(const Executor& executor, const Sizes& sizes, const Context& ctx, Measuring& out,
               int64_t& outputs) {
  Measuring::Run run{.executor = &executor, .args = {}, .plan = {}};
  run.args.sizes = sizes;
  // No attention runs, so its tables may be empty.
  run.args.segments.assign(static_cast<size_t>(executor.graph().num_segment_slots()),
                           AttentionInput(std::span<const ops::AttentionSegment>()));
  VLR_ASSIGN_OR_RETURN(run.plan, executor.plan(run.args, ctx));
  const auto firsts =
      std::make_shared<const std::set<const Node*>>(different_products(executor.graph(), run.plan));
  run.args.only = [firsts](const Node& node) { return firsts->contains(&node); };
  out.arena_bytes = std::max(out.arena_bytes, run.plan.total());
  for (size_t i = 0; i < run.plan.tensors.size(); ++i) {
    if (executor.graph().values()[i].kind == ValueKind::kBound)
      out.bound_bytes = std::max(out.bound_bytes, run.plan.tensors[i].bytes());
  }
  for (const Node* node : *firsts)
    outputs = std::max(outputs, run.plan.tensors[static_cast<size_t>(node->output.id)].numel());
  out.runs.push_back(std::move(run));
  return {};
}

/// The matrix products of both towers alone, over random numbers, at the top of every bucket of
/// rows that batches up to these sizes fall into, which run in chunks of rows.
Result<Measuring> plan_measuring(const MeasuredProducts& products, PassRunner& runner) {
  int64_t max_tokens = products.max_tokens, max_patches = products.max_patches;
  if (runner.row_chunk > 0) {
    max_tokens = std::min(max_tokens, runner.row_chunk);
    max_patches = std::min(max_patches, runner.row_chunk);
  }
  const Context& ctx = runner.device().context();
  // A small model gains less than measuring takes: every fifth bucket, and the others borrow.
  const bool coarse = runner.device().budget().bytes(purposes::kWeights) < kSmallModelBytes;
  Measuring out;
  int64_t outputs = 0;
  for (const int64_t tokens : bucket_tops(max_tokens, coarse)) {
    Sizes sizes{};
    size_of(sizes, Sym::kTokens) = tokens;
    size_of(sizes, Sym::kSequences) = std::min(tokens, kMostSequences);
    for (const Executor* executor : products.text)
      VLR_RETURN_IF_ERROR(add_run(*executor, sizes, ctx, out, outputs));
  }
  if (products.vision) {
    for (const int64_t patches : bucket_tops(max_patches, coarse)) {
      Sizes sizes{};
      size_of(sizes, Sym::kPatches) =
          std::max(kPatchesPerToken, patches / kPatchesPerToken * kPatchesPerToken);
      VLR_RETURN_IF_ERROR(add_run(*products.vision, sizes, ctx, out, outputs));
    }
  }
  out.scratch_bytes = std::min(kMostScratch, cuda::Blas::measuring_bytes(outputs));
  out.least_scratch_bytes = cuda::Blas::measuring_bytes(outputs / 64);
  return out;
}

Status run_all(Measuring& m, const Buffer& arena, const Buffer& bound, Context& ctx) {
  for (Measuring::Run& run : m.runs) {
    for (size_t i = 0; i < run.plan.tensors.size(); ++i) {
      const ValueInfo& info = run.executor->graph().values()[i];
      if (info.kind != ValueKind::kBound) continue;
      run.args.bound[info.name] = run.plan.tensors[i];
      run.args.bound[info.name].data = bound.data();
    }
    VLR_RETURN_IF_ERROR(run.executor->run(run.args, run.plan, arena.bytes(), ctx));
  }
  return {};
}

}  // namespace

Result<int64_t> measuring_bytes(const MeasuredProducts& products, PassRunner& runner) {
  VLR_ASSIGN_OR_RETURN(const Measuring m, plan_measuring(products, runner));
  return arena_aligned(m.arena_bytes) + arena_aligned(m.bound_bytes) +
         arena_aligned(m.scratch_bytes);
}

Status measure_products(const MeasuredProducts& products, PassRunner& runner, DType dtype) {
  OpenDevice& device = runner.device();
  if (!device.is_gpu()) return {};
  VLR_ASSIGN_OR_RETURN(Measuring m, plan_measuring(products, runner));
  const MemoryBudget& budget = device.budget();
  const int64_t room =
      budget.cap() - budget.used() - arena_aligned(m.arena_bytes) - arena_aligned(m.bound_bytes);
  if (room < m.least_scratch_bytes) return {};
  // One region stands for every bound tensor: nobody reads what a product leaves there.
  VLR_RETURN_IF_ERROR(runner.arena.reserve(m.arena_bytes));
  Buffer bound = device.memory(purposes::kMeasuring), scratch = device.memory(purposes::kMeasuring);
  VLR_RETURN_IF_ERROR(bound.reserve(m.bound_bytes));
  VLR_RETURN_IF_ERROR(
      scratch.reserve(std::min(m.scratch_bytes, room / kArenaAlignment * kArenaAlignment)));
  Context& ctx = device.context();
  const Status status = device.compute([&]() -> Status {
    for (const Buffer* b : {&runner.arena, &bound})
      VLR_RETURN_IF_ERROR(fill_random(*b, dtype, ctx));
    ctx.blas->begin_measuring(scratch.bytes());
    const Status ran = run_all(m, runner.arena, bound, ctx);
    ctx.blas->end_measuring();
    return ran;
  });
  VLR_RETURN_IF_ERROR(device.synchronize());
  return status.with_context("measuring");
}

#else
Status measure_products(const MeasuredProducts&, PassRunner&, DType) { return {}; }
Result<int64_t> measuring_bytes(const MeasuredProducts&, PassRunner&) { return 0; }
#endif

}  // namespace vlr
