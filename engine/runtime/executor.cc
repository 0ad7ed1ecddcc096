#include "engine/runtime/executor.h"

#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <set>

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

/// The plan's tensors where they are in a run: in the arena, or where the caller has them.
Result<std::vector<Tensor>> place_values(const Graph& graph, const RunArgs& args,
                                         const RunPlan& plan, std::span<std::byte> arena) {
  const auto& values = graph.values();
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
  return tensors;
}

/// Tells on_value of what a node wrote.
Status show_outputs(const RunArgs& args, const Graph& graph, const Node& node, const Bindings& b) {
  VLR_RETURN_IF_ERROR(args.on_value(graph.info(node.output).name, b[node.output]));
  for (Value v : node.more_outputs) {
    if (v.defined()) VLR_RETURN_IF_ERROR(args.on_value(graph.info(v).name, b[v]));
  }
  return {};
}

/// Streamed groups in the order of the nodes that read them, and where in it a run is.
class GroupsOfRun {
 public:
  /// `supply`: null if nothing is streamed.
  GroupsOfRun(WeightSupply* supply, const std::vector<int>& group_of_node)
      : supply_(supply), group_of_node_(group_of_node) {}

  /// The run's nodes, one after the other, before begin().
  void list(size_t node) {
    const int g = group_of_node_[node];
    if (g >= 0 && (groups_.empty() || groups_.back() != g)) groups_.push_back(g);
  }
  Status begin() {
    VLR_RETURN_IF_ERROR(supply_->begin(groups_));
    return groups_.empty() ? Status() : supply_->need(groups_[0]);
  }
  /// Before a node is launched: it may read its group from then on, and the last group may leave.
  Status bring(size_t node) {
    const int g = supply_ ? group_of_node_[node] : -1;
    if (g < 0 || g == groups_[at_]) return {};
    VLR_RETURN_IF_ERROR(supply_->done(groups_[at_], std::span(groups_).subspan(at_ + 1)));
    return supply_->need(groups_[++at_]);
  }
  Status end() { return groups_.empty() ? Status() : supply_->done(groups_[at_], {}); }

 private:
  WeightSupply* supply_;
  const std::vector<int>& group_of_node_;
  std::vector<int> groups_;
  size_t at_ = 0;
};

/// What a run's nodes take, if the caller wants to know: by the host's clock, or on a GPU between
/// marks in its stream.
class NodeClock {
 public:
  using Clock = std::chrono::steady_clock;

  NodeClock(const RunArgs& args, size_t num_nodes)
      : on_(args.times != nullptr),
        gpu_(args.device && args.device->is_gpu() ? args.device : nullptr),
        times_(on_ ? num_nodes : 0) {}

  bool on() const { return on_; }
  /// Before every node.
  Status mark() {
    if (!on_ || !gpu_) return {};
    VLR_ASSIGN_OR_RETURN(OpenDevice::Mark m, gpu_->mark(true));
    marks_.push_back(std::move(m));
    return {};
  }
  /// After it. Chunks of a region run a node several times.
  void add(size_t n, const Node& node, const Bindings& b, Clock::time_point start) {
    const std::chrono::duration<double> seconds = Clock::now() - start;
    NodeTime& time = times_[n];
    time.name = node.name;
    time.op = node.op;
    if (!gpu_) time.seconds += seconds.count();
    const Cost cost = node.cost(b);
    time.cost.bytes += cost.bytes;
    time.cost.flops += cost.flops;
    timed_.push_back(n);
  }
  /// After the last node: waits for it on a GPU.
  Status read_marks() {
    if (!gpu_) return {};
    VLR_RETURN_IF_ERROR(mark());
    VLR_RETURN_IF_ERROR(gpu_->wait(marks_.back()));
    for (size_t i = 0; i < timed_.size(); ++i) {
      VLR_ASSIGN_OR_RETURN(const double seconds, gpu_->seconds_between(marks_[i], marks_[i + 1]));
      times_[timed_[i]].seconds += seconds;
    }
    return {};
  }
  /// Copies beside the nodes, once marks were read.
  Status add_copies(WeightSupply& supply, std::vector<CopyTime>& copies) const {
    if (marks_.empty()) return {};
    for (const WeightSupply::TimedCopy& copy : supply.time_copies(false)) {
      CopyTime& time = copies.emplace_back();
      time.name = copy.name;
      time.bytes = copy.bytes;
      VLR_ASSIGN_OR_RETURN(time.start, gpu_->seconds_between(marks_.front(), copy.begun));
      VLR_ASSIGN_OR_RETURN(time.seconds, gpu_->seconds_between(copy.begun, *copy.arrived));
    }
    return {};
  }
  /// Of the nodes that ran, in the graph's order.
  void append_to(std::vector<NodeTime>& out) const {
    std::copy_if(times_.begin(), times_.end(), std::back_inserter(out),
                 [](const NodeTime& t) { return !t.name.empty(); });
  }

 private:
  const bool on_;
  OpenDevice* const gpu_;
  std::vector<NodeTime> times_;          // of every node
  std::vector<size_t> timed_;            // nodes in the order in which they ran
  std::vector<OpenDevice::Mark> marks_;  // on a GPU: before each of them, and at the end
};

}  // namespace

Result<Executor> Executor::create(const Graph& graph, const WeightLookup& weights,
                                  WeightSupply* stream) {
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
  e.region_of_value_.assign(graph.values().size(), -1);
  for (const RowRegion& rows : graph.row_regions()) {
    Region region{.rows = rows, .values = {}};
    std::set<int32_t> ids;
    for (size_t n = rows.begin; n < rows.end; ++n) {
      const Node& node = graph.nodes()[n];
      const auto use = [&](Value v) {
        for (; v.defined() && ids.insert(v.id).second; v = graph.info(v).base) {
        }
      };
      for (Value v : node.inputs) use(v);
      use(node.output);
      for (Value v : node.more_outputs) use(v);
    }
    for (const int32_t id : ids) {  // a view comes after its base
      region.values.push_back({id});
      const Lifetime& life = e.lifetimes_[static_cast<size_t>(id)];
      if (life.first >= static_cast<int32_t>(rows.begin) &&
          life.last < static_cast<int32_t>(rows.end))
        e.region_of_value_[static_cast<size_t>(id)] = static_cast<int>(e.regions_.size());
    }
    e.regions_.push_back(std::move(region));
  }
  return e;
}

void Executor::bind_rows(const Region& region, const std::vector<Tensor>& whole, int64_t begin,
                         int64_t count, Bindings& bindings) const {
  for (const Value v : region.values) {
    const ValueInfo& info = graph_->info(v);
    if (info.kind == ValueKind::kWeight) continue;
    if (info.kind == ValueKind::kView) {
      bindings.set(v, info.view(bindings[info.base]));
      continue;
    }
    // A row of the region is mul / div rows of the value.
    const Dim& rows = info.dims[0];
    const bool own = region_of_value_[index(v)] >= 0;
    bindings.set(v, whole[index(v)].slice(0, own ? 0 : begin * rows.mul / rows.div,
                                          count * rows.mul / rows.div));
  }
}

template <class Body>
Status Executor::for_each_node(const RunPlan& plan, const Sizes& sizes, Chunks chunks,
                               const std::vector<Tensor>& tensors, Bindings& bindings,
                               const Body& body) const {
  const auto& nodes = graph_->nodes();
  auto region = regions_.begin();
  for (size_t n = 0; n < nodes.size();) {
    while (region != regions_.end() && region->rows.end <= n) ++region;
    if (region == regions_.end() || n < region->rows.begin) {
      VLR_RETURN_IF_ERROR(body(n, bindings));
      ++n;
      continue;
    }
    const int64_t all = sizes[static_cast<size_t>(region->rows.rows)],
                  chunk = region->chunk(sizes, plan.row_chunk);
    int64_t begin = 0;
    do {
      if (chunk < all) bind_rows(*region, tensors, begin, std::min(chunk, all - begin), bindings);
      for (n = region->rows.begin; n < region->rows.end; ++n)
        VLR_RETURN_IF_ERROR(body(n, bindings));
      begin += chunk;
      if (chunks == Chunks::kEnds && begin < all)
        begin = std::max(begin, (all - 1) / chunk * chunk);
    } while (begin < all);
    if (chunk == all) continue;
    for (const Value v : region->values) bindings.set(v, tensors[index(v)]);
  }
  return {};
}

Result<RunPlan> Executor::plan(const RunArgs& args, const Context& ctx) const {
  VLR_RETURN_IF_ERROR(check_segments(*graph_, args));
  const auto& values = graph_->values();
  RunPlan plan;
  plan.row_chunk = args.row_chunk;
  plan.tensors.resize(values.size());
  plan.offsets.assign(values.size(), -1);
  plan.lifetimes = lifetimes_;
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
        Sizes sizes = args.sizes;
        Lifetime life = lifetimes_[i];
        if (const int r = region_of_value_[i]; r >= 0) {
          const Region& region = regions_[static_cast<size_t>(r)];
          int64_t& rows = size_of(sizes, region.rows.rows);
          const int64_t chunk = region.chunk(sizes, args.row_chunk);
          if (chunk < rows) {
            rows = chunk;
            // Its nodes run again for the next rows: the first ones follow the last ones.
            life.first = static_cast<int32_t>(region.rows.begin);
            life.last = static_cast<int32_t>(region.rows.end) - 1;
          }
        }
        plan.tensors[i] = shaped(info, sizes, ctx.device);
        if (life.first < 0) break;
        life.bytes = plan.tensors[i].bytes();
        blocks.push_back(life);
        plan.lifetimes[i] = life;
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
  plan.activation_bytes = arena_aligned(arena.bytes);

  plan.node_workspace.assign(graph_->nodes().size(), 0);
  Bindings shapes(plan.tensors, args.segments);
  const auto measure = [&](size_t n, const Bindings& b) -> Status {
    auto bytes = graph_->nodes()[n].workspace(b, ctx);
    if (!bytes) return bytes.error().with_context(graph_->nodes()[n].name);
    plan.node_workspace[n] = std::max(plan.node_workspace[n], *bytes);
    plan.workspace_bytes = std::max(plan.workspace_bytes, *bytes);
    return {};
  };
  VLR_RETURN_IF_ERROR(
      for_each_node(plan, args.sizes, Chunks::kEnds, plan.tensors, shapes, measure));
  return plan;
}

Status Executor::run(const RunArgs& args, const RunPlan& plan, std::span<std::byte> arena,
                     Context& ctx) const {
  VLR_RETURN_IF_ERROR(check_segments(*graph_, args));
  if (static_cast<int64_t>(arena.size()) < plan.total()) {
    return {Code::kInternal, fmt::format("executor: an arena of {} bytes, {} are needed",
                                         arena.size(), plan.total())};
  }
  VLR_ASSIGN_OR_RETURN(const std::vector<Tensor> tensors, place_values(*graph_, args, plan, arena));
  Bindings bindings(tensors, args.segments);
  const auto for_each = [&](const auto& body) {
    return for_each_node(
        plan, args.sizes, Chunks::kAll, tensors, bindings, [&](size_t n, const Bindings& b) {
          return args.only && !args.only(graph_->nodes()[n]) ? Status() : body(n, b);
        });
  };
  ctx.workspace = arena.subspan(static_cast<size_t>(plan.activation_bytes),
                                static_cast<size_t>(plan.workspace_bytes));
  NodeClock clock(args, graph_->nodes().size());
  GroupsOfRun groups(stream_, group_of_node_);
  const bool time_copies = stream_ && args.times && args.copies;
  if (stream_) {
    stream_->time_copies(time_copies);
    const Status listed = for_each([&](size_t n, const Bindings&) {
      groups.list(n);
      return Status();
    });
    VLR_RETURN_IF_ERROR(listed);
    VLR_RETURN_IF_ERROR(groups.begin());
  }
  const Status ran = for_each([&](size_t n, const Bindings& b) -> Status {
    const Node& node = graph_->nodes()[n];
    VLR_RETURN_IF_ERROR(groups.bring(n));
    VLR_RETURN_IF_ERROR(clock.mark());
    const NodeRange range(clock.on(), node);
    const auto start = NodeClock::Clock::now();
    if (Status s = node.run(b, ctx); !s.ok()) return s.with_context(node.name);
    if (clock.on()) clock.add(n, node, b, start);
    return args.on_value ? show_outputs(args, *graph_, node, b) : Status();
  });
  VLR_RETURN_IF_ERROR(ran);
  VLR_RETURN_IF_ERROR(groups.end());
  if (!clock.on()) return {};
  VLR_RETURN_IF_ERROR(clock.read_marks());
  if (time_copies) VLR_RETURN_IF_ERROR(clock.add_copies(*stream_, *args.copies));
  clock.append_to(*args.times);
  return {};
}

}  // namespace vlr
