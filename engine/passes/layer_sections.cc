#include "engine/passes/layer_sections.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/runtime/arena.h"
#include "kernels/convert/convert.h"
#include "kernels/core/integer.h"
#include "model/vision_encoder.h"

namespace vlr {
namespace {

/// Layers that are computed in one place, in order. The embeddings and the head are the device's.
struct Stretch {
  TextSection layers;
  bool on_host;
};
std::vector<Stretch> stretches_of(int64_t num_layers, const std::set<int64_t>& host_layers) {
  std::vector<Stretch> out = {{.layers = {.embedding = true, .head = false}, .on_host = false}};
  const auto begin = [&](int64_t layer, bool on_host) {
    out.push_back({.layers = {.begin = layer, .end = layer, .embedding = false, .head = false},
                   .on_host = on_host});
  };
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool on_host = host_layers.contains(layer);
    if (on_host != out.back().on_host) begin(layer, on_host);
    out.back().layers.end = layer + 1;
  }
  if (out.back().on_host) begin(num_layers, false);
  out.back().layers.head = true;
  return out;
}

/// ops::Convert by all threads.
Status convert_rows(const Tensor& from, const Tensor& to, Context& ctx) {
  constexpr int64_t kRows = 64;
  const int64_t rows = from.dim(0), parts = ceil_div(rows, kRows);
  std::vector<Status> status(static_cast<size_t>(parts));
  ctx.threads->parallel_for(parts, [&](int64_t part, int) {
    const int64_t first = part * kRows, count = std::min(kRows, rows - first);
    Context one = ctx;
    status[static_cast<size_t>(part)] = ops::run<ops::Convert>(
        {.x = from.slice(0, first, count), .y = to.slice(0, first, count)}, one);
  });
  for (const Status& s : status) VLR_RETURN_IF_ERROR(s);
  return {};
}

}  // namespace

Result<std::unique_ptr<LayerSections>> LayerSections::create(
    const ModelConfig& config, TextGraph which, const std::set<int64_t>& host_layers,
    const WeightLookup& weights, PassRunner& runner, const GraphOptions& options,
    WeightSupply* stream) {
  std::unique_ptr<LayerSections> out(new LayerSections(config, host_layers, runner, options.dtype));
  const GraphOptions host_options{.dtype = DType::kF32, .quant = options.quant};
  for (const Stretch& s : stretches_of(config.text_config.num_hidden_layers, host_layers)) {
    const bool only_head = s.layers.begin == s.layers.end && !s.layers.embedding;
    if (only_head && which == TextGraph::kPrefix) continue;
    LayerSection& section = out->sections_.emplace_back();
    section.layers = s.layers;
    section.on_host = s.on_host;
    section.graph = build_text_graph(config, which, s.layers, s.on_host ? host_options : options);
    VLR_ASSIGN_OR_RETURN(section.executor,
                         Executor::create(section.graph, weights, s.on_host ? nullptr : stream));
  }
  return out;
}

/// The device's rows, in f32; waits until they are there.
Status LayerSections::to_host(const Tensor& from, const Tensor& to) {
  Tensor staged = from;
  staged.data = runner_.carrier.data();
  staged.device = Device::kCpu;
  VLR_RETURN_IF_ERROR(runner_.device().copy(staged.data, from.data, from.bytes()));
  VLR_RETURN_IF_ERROR(runner_.device().synchronize());
  return runner_.device().compute(
      [&] { return convert_rows(staged, to, runner_.host().context()); });
}

/// The host's rows, in the device's dtype, in the order of the stream. Nothing that is in the
/// stream reads the carrier any more: to_host() waited for it.
Status LayerSections::to_device(const Tensor& from, const Tensor& to) {
  Tensor staged = to;
  staged.data = runner_.carrier.data();
  staged.device = Device::kCpu;
  VLR_RETURN_IF_ERROR(runner_.device().compute(
      [&] { return convert_rows(from, staged, runner_.host().context()); }));
  return runner_.device().copy(to.data, staged.data, to.bytes());
}

/// Levels of DeepStack that layers of the host add.
std::vector<size_t> LayerSections::host_levels() const {
  std::vector<size_t> out;
  if (!config_.vision_config) return out;
  for (size_t k = 0; k < config_.vision_config->deepstack_visual_indexes.size(); ++k) {
    if (host_layers_.contains(static_cast<int64_t>(k))) out.push_back(k);
  }
  return out;
}

LayerSections::Carried LayerSections::carried(const Sizes& sizes, int64_t visual) const {
  if (!any_on_host()) return {};
  const int64_t tokens = sizes[static_cast<size_t>(Sym::kTokens)],
                rows = tokens + sizes[static_cast<size_t>(Sym::kSequences)],
                width = config_.text_config.hidden_size, element = dtype_bytes(dtype_);
  const auto f32 = static_cast<int64_t>(sizeof(float));
  const std::vector<size_t> levels = host_levels();
  if (levels.empty()) visual = 0;
  return {.device = arena_aligned(rows * width * element),
          .host = (rows + visual * std::ssize(levels)) * width * f32,
          .pinned = std::max(tokens, visual) * width * element};
}

Result<LayerSections::Plans> LayerSections::plan_each(const RunArgs& device,
                                                      const RunArgs& host) const {
  Plans out;
  for (const LayerSection& s : sections_) {
    VLR_ASSIGN_OR_RETURN(RunPlan plan, s.executor->plan(s.on_host ? host : device, context(s)));
    int64_t& most = s.on_host ? out.host_bytes : out.device_bytes;
    most = std::max(most, arena_aligned(plan.total()));
    out.each.push_back(std::move(plan));
  }
  return out;
}

Result<PassPlan> LayerSections::plan(const RunArgs& args, int64_t visual) const {
  VLR_ASSIGN_OR_RETURN(Plans plans, plan_each(args, args));
  const Carried bytes = carried(args.sizes, visual);
  PassPlan out{.run = {},
               .carried_bytes = bytes.device,
               .host_bytes = plans.host_bytes + bytes.host,
               .pinned_bytes = bytes.pinned};
  for (size_t i = 0; i < sections_.size(); ++i) {
    if (sections_[i].on_host) continue;
    if (out.graph && plans.each[i].total() <= out.run.total()) continue;
    out.run = std::move(plans.each[i]);
    out.graph = &sections_[i].graph;
  }
  return out;
}

/// What is carried lies behind what the sections work in.
Status LayerSections::bind_carried(SectionArgs& args, const Plans& plans) {
  const int64_t tokens = size_of(args.host.sizes, Sym::kTokens),
                sequences = size_of(args.host.sizes, Sym::kSequences),
                visual = size_of(args.host.sizes, Sym::kVisualTokens),
                width = config_.text_config.hidden_size;
  const auto bind_x = [&](RunArgs& to, std::byte* at, DType dtype, Device device) {
    const Tensor x(at, dtype, {tokens, width}, device);
    to.bound[std::string(text_values::kX)] = x;
    to.bound[std::string(text_values::kXFinal)] =
        Tensor(at ? at + x.bytes() : nullptr, dtype, {sequences, width}, device);
  };
  const auto behind = [](const Buffer& memory, int64_t bytes) {
    return memory.data() ? memory.data() + bytes : nullptr;
  };
  std::byte* const on_host = behind(runner_.host_arena, plans.host_bytes);
  bind_x(args.device, behind(runner_.arena, plans.device_bytes), dtype_, runner_.device().kind());
  bind_x(args.host, on_host, DType::kF32, Device::kCpu);
  int64_t row = tokens + sequences;
  for (const size_t k : host_levels()) {
    const Tensor to(on_host ? on_host + row * width * static_cast<int64_t>(sizeof(float)) : nullptr,
                    DType::kF32, {visual, width});
    args.host.bound[feature_name(k + 1)] = to;
    if (visual > 0) {
      const Tensor all = args.device.bound.at(feature_name(k + 1));
      VLR_RETURN_IF_ERROR(to_host(all.slice(0, args.first_visual, visual), to));
    }
    row += visual;
  }
  return {};
}

Status LayerSections::run(SectionArgs& args, std::string_view kind) {
  if (!any_on_host()) return runner_.run(only(), args.device, kind);
  const std::string name = runner_.next_name(kind);
  OpenDevice& device = runner_.device();
  args.device.device = &device;
  args.device.row_chunk = args.host.row_chunk = runner_.row_chunk;
  VLR_ASSIGN_OR_RETURN(const Plans plans, plan_each(args.device, args.host));
  const Carried bytes = carried(args.host.sizes, size_of(args.host.sizes, Sym::kVisualTokens));
  VLR_RETURN_IF_ERROR(runner_.arena.reserve(plans.device_bytes + bytes.device).with_context(name));
  VLR_RETURN_IF_ERROR(runner_.host_arena.reserve(plans.host_bytes + bytes.host).with_context(name));
  if (bytes.pinned > runner_.carrier.size()) {
    VLR_RETURN_IF_ERROR(device.synchronize());  // a copy may still read it
    VLR_RETURN_IF_ERROR(runner_.carrier.reserve(bytes.pinned).with_context(name));
  }
  VLR_RETURN_IF_ERROR(bind_carried(args, plans));
  for (size_t i = 0; i < sections_.size(); ++i) {
    const LayerSection& s = sections_[i];
    RunArgs& own = s.on_host ? args.host : args.device;
    if (i > 0) {
      const std::string_view x = s.layers.begin < config_.text_config.num_hidden_layers
                                     ? text_values::kX
                                     : text_values::kXFinal;
      const RunArgs& before = s.on_host ? args.device : args.host;
      const Tensor from = before.bound.find(x)->second, to = own.bound.find(x)->second;
      VLR_RETURN_IF_ERROR(s.on_host ? to_host(from, to) : to_device(from, to));
    }
    const std::span<std::byte> memory =
        s.on_host ? runner_.host_arena.bytes().first(static_cast<size_t>(plans.host_bytes))
                  : runner_.arena.bytes().first(static_cast<size_t>(plans.device_bytes));
    VLR_RETURN_IF_ERROR(
        runner_.run_planned(*s.executor, own, plans.each[i], memory, context(s), name));
  }
  return {};
}

}  // namespace vlr
