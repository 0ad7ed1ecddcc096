#include "engine/runtime/executor.h"

#include <fmt/format.h>

#include <chrono>

#if VLR_WITH_CUDA
#include <nvtx3/nvToolsExt.h>
#endif

namespace vlr {
namespace {

size_t index(Value v) { return static_cast<size_t>(v.id); }

Tensor shaped(const ValueInfo& info, const Sizes& sizes, Device device) {
  Tensor t;
  t.dtype = info.dtype;
  t.device = device;
  t.rank = static_cast<int>(info.dims.size());
  int64_t stride = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    const auto axis = static_cast<size_t>(i);
    t.dims[axis] = info.dims[axis].at(sizes);
    t.strides[axis] = stride;
    stride *= t.dims[axis];
  }
  return t;
}

Status check_bound(const ValueInfo& info, const Tensor& given, const Tensor& expected) {
  bool same = given.dtype == expected.dtype && given.device == expected.device &&
              given.rank == expected.rank;
  for (int a = 0; same && a < given.rank; ++a) same = given.dim(a) == expected.dim(a);
  if (same) return {};
  return {Code::kInternal, fmt::format("executor: {} is bound to {}, expected {}", info.name,
                                       describe(given), describe(expected))};
}

/// A node's name in the timeline of Nsight Systems, over its launches.
class NodeRange {
 public:
#if VLR_WITH_CUDA
  NodeRange(bool on, const Node& node) : on_(on) {
    if (on_) nvtxRangePushA(node.name.c_str());
  }
  ~NodeRange() {
    if (on_) nvtxRangePop();
  }
  NodeRange(const NodeRange&) = delete;
  NodeRange& operator=(const NodeRange&) = delete;

 private:
  bool on_;
#else
  NodeRange(bool, const Node&) {}
#endif
};

Status check_segments(const Graph& graph, const RunArgs& args) {
  const auto needed = static_cast<size_t>(graph.num_segment_slots());
  if (args.segments.size() >= needed) return {};
  return {Code::kInternal, fmt::format("executor: {} attention tables, the graph reads {}",
                                       args.segments.size(), needed)};
}

}  // namespace

Result<Executor> Executor::create(const Graph& graph, const WeightLookup& weights,
                                  WeightStream* stream) {
  VLR_RETURN_IF_ERROR(graph.validate());
  Executor e;
  e.graph_ = &graph;
  e.weights_.resize(graph.values().size());
  e.lifetimes_.assign(graph.values().size(), {.bytes = 0, .first = -1, .last = -1});
  for (size_t i = 0; i < graph.values().size(); ++i) {
    const ValueInfo& info = graph.values()[i];
    if (info.kind != ValueKind::kWeight) continue;
    VLR_ASSIGN_OR_RETURN(const ConstTensor w, weights(info.name));
    Tensor& slot = e.weights_[i];
    // Bindings hold one kind of view; contracts take weights as ConstTensor, so nobody writes
    // through it.
    slot.data = const_cast<void*>(w.data);
    slot.dtype = w.dtype;
    slot.device = w.device;
    slot.rank = w.rank;
    slot.dims = w.dims;
    slot.strides = w.strides;
  }
  if (stream) {
    e.stream_ = stream;
    for (const Node& node : graph.nodes()) {
      int& group = e.group_of_node_.emplace_back(-1);
      for (Value v : node.inputs) {
        if (!v.defined()) continue;
        const ValueInfo& root = graph.info(graph.root(v));
        if (root.kind != ValueKind::kWeight) continue;
        const int g = stream->group_of(root.name);
        if (g < 0 || g == group) continue;
        if (group >= 0)
          return {Code::kInternal, node.name + ": reads weights of two groups that are streamed"};
        group = g;
      }
    }
  }
  int32_t step = 0;
  for (const Node& node : graph.nodes()) {
    const auto touch = [&](Value v) {
      if (!v.defined() || graph.info(graph.root(v)).kind != ValueKind::kActivation) return;
      Lifetime& life = e.lifetimes_[index(graph.root(v))];
      if (life.first < 0) life.first = step;
      life.last = step;
    };
    for (Value v : node.inputs) touch(v);
    touch(node.output);
    for (Value v : node.more_outputs) touch(v);
    ++step;
  }
  return e;
}

Result<RunPlan> Executor::plan(const RunArgs& args, const Context& ctx) const {
  VLR_RETURN_IF_ERROR(check_segments(*graph_, args));
  const auto& values = graph_->values();
  RunPlan plan;
  plan.tensors.resize(values.size());
  plan.offsets.assign(values.size(), -1);
  std::vector<Lifetime> blocks;
  std::vector<size_t> owners;
  for (size_t i = 0; i < values.size(); ++i) {
    const ValueInfo& info = values[i];
    switch (info.kind) {
      case ValueKind::kWeight:
        plan.tensors[i] = weights_[i];
        break;
      case ValueKind::kBound: {
        plan.tensors[i] = shaped(info, args.sizes, ctx.device);
        if (const auto it = args.bound.find(info.name); it != args.bound.end()) {
          VLR_RETURN_IF_ERROR(check_bound(info, it->second, plan.tensors[i]));
          plan.tensors[i] = it->second;
        }
        break;
      }
      case ValueKind::kActivation: {
        plan.tensors[i] = shaped(info, args.sizes, ctx.device);
        if (lifetimes_[i].first < 0) break;
        Lifetime life = lifetimes_[i];
        life.bytes = plan.tensors[i].bytes();
        blocks.push_back(life);
        owners.push_back(i);
        break;
      }
      case ValueKind::kView:
        plan.tensors[i] = info.view(plan.tensors[index(info.base)]);
        break;
    }
  }
  const ArenaPlan arena = plan_arena(blocks);
  for (size_t b = 0; b < blocks.size(); ++b) plan.offsets[owners[b]] = arena.offsets[b];
  plan.activation_bytes = (arena.bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;

  const Bindings shapes(plan.tensors, args.segments);
  for (const Node& node : graph_->nodes()) {
    auto bytes = node.workspace(shapes, ctx);
    if (!bytes) return bytes.error().with_context(node.name);
    plan.workspace_bytes = std::max(plan.workspace_bytes, *bytes);
  }
  return plan;
}

Status Executor::run(const RunArgs& args, const RunPlan& plan, std::span<std::byte> arena,
                     Context& ctx) const {
  VLR_RETURN_IF_ERROR(check_segments(*graph_, args));
  if (static_cast<int64_t>(arena.size()) < plan.total()) {
    return {Code::kInternal, fmt::format("executor: an arena of {} bytes, {} are needed",
                                         arena.size(), plan.total())};
  }
  const auto& values = graph_->values();
  std::vector<Tensor> tensors = plan.tensors;
  for (size_t i = 0; i < values.size(); ++i) {
    const ValueInfo& info = values[i];
    if (info.kind == ValueKind::kActivation && plan.offsets[i] >= 0)
      tensors[i].data = arena.data() + plan.offsets[i];
    if (info.kind == ValueKind::kView) tensors[i] = info.view(tensors[index(info.base)]);
    if (info.kind == ValueKind::kBound) {
      const auto it = args.bound.find(info.name);
      if (it == args.bound.end()) {
        return {Code::kInternal, fmt::format("executor: nothing is bound to {}", info.name)};
      }
      VLR_RETURN_IF_ERROR(check_bound(info, it->second, tensors[i]));
      tensors[i] = it->second;
    }
  }
  const Bindings bindings(std::move(tensors), args.segments);
  ctx.workspace = arena.subspan(static_cast<size_t>(plan.activation_bytes),
                                static_cast<size_t>(plan.workspace_bytes));
  OpenDevice* gpu = args.device && args.device->is_gpu() ? args.device : nullptr;
  std::vector<OpenDevice::Mark> marks;  // before every node, and after the last
  const auto mark = [&]() -> Status {
    if (!args.times || !gpu) return {};
    VLR_ASSIGN_OR_RETURN(OpenDevice::Mark m, gpu->mark(true));
    marks.push_back(std::move(m));
    return {};
  };
  const size_t first_time = args.times ? args.times->size() : 0;
  // Streamed groups in the order of the nodes that read them, and where in it the run is.
  std::vector<int> groups;
  size_t at = 0;
  if (stream_) {
    for (size_t n = 0; n < group_of_node_.size(); ++n) {
      const int g = group_of_node_[n];
      if (g < 0 || (args.only && !args.only(graph_->nodes()[n]))) continue;
      if (groups.empty() || groups.back() != g) groups.push_back(g);
    }
    VLR_RETURN_IF_ERROR(stream_->begin(groups));
    if (!groups.empty()) VLR_RETURN_IF_ERROR(stream_->need(groups[0]));
  }
  const auto bring = [&](size_t node) -> Status {
    const int g = stream_ ? group_of_node_[node] : -1;
    if (g < 0 || g == groups[at]) return {};
    VLR_RETURN_IF_ERROR(stream_->done(groups[at], std::span(groups).subspan(at + 1)));
    return stream_->need(groups[++at]);
  };
  for (const Node& node : graph_->nodes()) {
    if (args.only && !args.only(node)) continue;
    VLR_RETURN_IF_ERROR(bring(static_cast<size_t>(&node - graph_->nodes().data())));
    VLR_RETURN_IF_ERROR(mark());
    const NodeRange range(args.times != nullptr, node);
    const auto start = std::chrono::steady_clock::now();
    if (Status s = node.run(bindings, ctx); !s.ok()) return s.with_context(node.name);
    if (args.times) {
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      args.times->push_back({node.name, node.op, seconds.count(), node.cost(bindings)});
    }
    if (args.on_value) {
      VLR_RETURN_IF_ERROR(args.on_value(graph_->info(node.output).name, bindings[node.output]));
      for (Value v : node.more_outputs) {
        if (v.defined()) VLR_RETURN_IF_ERROR(args.on_value(graph_->info(v).name, bindings[v]));
      }
    }
  }
  if (!groups.empty()) VLR_RETURN_IF_ERROR(stream_->done(groups[at], {}));
  if (marks.empty()) return {};
  VLR_RETURN_IF_ERROR(mark());
  VLR_RETURN_IF_ERROR(gpu->wait(marks.back()));
  for (size_t i = 0; i + 1 < marks.size(); ++i) {
    VLR_ASSIGN_OR_RETURN((*args.times)[first_time + i].seconds,
                         gpu->seconds_between(marks[i], marks[i + 1]));
  }
  return {};
}

}  // namespace vlr
