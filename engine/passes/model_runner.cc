#include "engine/passes/model_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "kernels/attention/attention.h"
#include "kernels/convert/convert.h"
#include "kernels/core/load.h"
#include "model/vision_encoder.h"

#if VLR_WITH_CUDA
#include "kernels/cuda/blas.h"
#include "kernels/cuda/synthetic_fill.h"
#endif

namespace vlr {
namespace {

constexpr int64_t kAlign = kArenaAlignment;
[[maybe_unused]] constexpr int64_t kSmallModelBytes = int64_t{256} << 20;
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

std::string feature_name(size_t level) {
  return level == 0 ? "visual" : fmt::format("deepstack.{}", level - 1);
}

/// Segments of equally long sequences, which stand for a batch when one is planned.
std::vector<ops::AttentionSegment> equal_segments(const TextSizes& s, bool final) {
  std::vector<ops::AttentionSegment> out;
  const auto length = static_cast<int32_t>(s.tokens / s.sequences),
             prefix = static_cast<int32_t>(s.prefix_tokens);
  for (int32_t b = 0; b < static_cast<int32_t>(s.sequences); ++b) {
    out.push_back({.q_begin = final ? b : b * length,
                   .q_len = final ? 1 : length,
                   .k_begin = b * length,
                   .k_len = length,
                   .prefix_begin = 0,
                   .prefix_len = prefix});
  }
  return out;
}

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

}  // namespace

/// The arrays of one run: added one by one, then brought to the device in one copy.
class ModelRunner::Inputs {
 public:
  template <class T>
  void add(std::string name, const std::vector<T>& values, std::initializer_list<int64_t> dims) {
    static_assert(sizeof(T) == 4);
    constexpr DType dtype = std::is_same_v<T, float> ? DType::kF32 : DType::kI32;
    add_bytes(std::move(name), values.data(), Tensor(nullptr, dtype, dims));
  }
  void add_bytes(std::string name, const void* from, Tensor shape) {
    parts_.push_back({std::move(name), {from}, {shape.bytes()}, shape, bytes_});
    bytes_ += round_up(shape.bytes(), kAlign);
  }
  /// One array put together from several; `pinned`: the device reads them where they are.
  void add_pieces(std::string name, std::vector<const void*> from, std::vector<int64_t> bytes,
                  std::vector<bool> pinned, Tensor shape) {
    parts_.push_back(
        {std::move(name), std::move(from), std::move(bytes), shape, bytes_, std::move(pinned)});
    bytes_ += round_up(shape.bytes(), kAlign);
  }

  /// Starts the copy and binds the tensors; for `host`, if not null, where they were staged. Then
  /// none may be pinned.
  Status place(OpenDevice& device, Slot& slot, RunArgs& args, RunArgs* host = nullptr) {
    VLR_RETURN_IF_ERROR(device.wait(slot.done));
    const auto is_pinned = [&](const Part& part, size_t i) {
      return device.is_gpu() && i < part.pinned.size() && part.pinned[i];
    };
    int64_t staged_bytes = 0;  // up to the end of what is staged
    for (const Part& part : parts_) {
      int64_t end = part.offset;
      for (size_t i = 0; i < part.from.size(); ++i) {
        end += part.bytes[i];
        if (!is_pinned(part, i)) staged_bytes = end;
      }
    }
    if (device.is_gpu()) VLR_RETURN_IF_ERROR(slot.memory.reserve(bytes_));
    if (device.only_plans()) {
      if (host) bind(nullptr, Device::kCpu, *host);
      bind(nullptr, device.kind(), args);
      return {};
    }
    VLR_RETURN_IF_ERROR(slot.staging.reserve(staged_bytes));
    std::byte* base = slot.staging.data();
    // Runs of what is staged go in one copy each.
    int64_t staged_from = 0;
    const auto copy_staged = [&](int64_t end) {
      if (!device.is_gpu() || end <= staged_from) return Status();
      return device.copy(slot.memory.data() + staged_from, base + staged_from, end - staged_from);
    };
    for (const Part& part : parts_) {
      int64_t to = part.offset;
      for (size_t i = 0; i < part.from.size(); ++i) {
        const int64_t bytes = part.bytes[i];
        if (is_pinned(part, i)) {
          VLR_RETURN_IF_ERROR(copy_staged(to));
          VLR_RETURN_IF_ERROR(device.copy(slot.memory.data() + to, part.from[i], bytes));
          staged_from = to + bytes;
        } else if (bytes > 0) {
          std::memcpy(base + to, part.from[i], static_cast<size_t>(bytes));
        }
        to += bytes;
      }
    }
    VLR_RETURN_IF_ERROR(copy_staged(staged_bytes));
    if (host) bind(base, Device::kCpu, *host);
    bind(device.is_gpu() ? slot.memory.data() : base, device.kind(), args);
    return {};
  }

 private:
  void bind(std::byte* base, Device device, RunArgs& args) {
    for (Part& part : parts_) {
      part.tensor.data = base ? base + part.offset : nullptr;
      part.tensor.device = device;
      args.bound[part.name] = part.tensor;
    }
  }

  struct Part {
    std::string name;
    std::vector<const void*> from;
    std::vector<int64_t> bytes;
    Tensor tensor;
    int64_t offset;
    std::vector<bool> pinned = {};  // of pieces; none: all are staged
  };
  std::vector<Part> parts_;
  int64_t bytes_ = 0;
};

ModelRunner::ModelRunner(const ModelConfig& config, OpenDevice& device, const GraphOptions& options,
                         Observers observers, std::set<int64_t> host_layers)
    : config_(config),
      device_(device),
      options_(options),
      observers_(std::move(observers)),
      host_layers_(std::move(host_layers)) {
  arena_ = device.memory("arena");
  host_arena_ = device.host_memory("arena");
  carrier_ = device.staging("inputs");
  prefix_memory_ = device.memory("prefix keys and values");
  host_prefix_memory_ = device.host_memory("prefix keys and values");
  for (auto* slots : {&text_slots_, &prefix_slots_, &vision_slots_}) {
    for (Slot& slot : *slots) {
      slot.staging = device.staging("inputs");
      slot.memory = device.memory("inputs");
      slot.out_staging = device.staging("inputs");
      slot.out = device.memory("inputs");
    }
  }
}

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(const ModelConfig& config,
                                                         const WeightLookup& weights,
                                                         OpenDevice& device,
                                                         const GraphOptions& options,
                                                         Observers observers, WeightSupply* stream,
                                                         std::set<int64_t> host_layers) {
  std::unique_ptr<ModelRunner> r(
      new ModelRunner(config, device, options, std::move(observers), std::move(host_layers)));
  const Context& ctx = device.context();
  static const ImplChoices kNone;  // what is chosen on a GPU is a GPU's
  VLR_ASSIGN_OR_RETURN(
      r->host_, OpenDevice::open({}, true, *ctx.threads, device.is_gpu() ? kNone : *ctx.choices));
  r->text_pairs_ = text_rotary_pairs(config.text_config);
  VLR_ASSIGN_OR_RETURN(r->score_, r->make_sections(TextPass::kScore, weights, stream));
  VLR_ASSIGN_OR_RETURN(r->prefix_, r->make_sections(TextPass::kPrefix, weights, stream));
  if (config.vision_config) {
    r->vision_pairs_ = vision_rotary_pairs(*config.vision_config);
    r->vision_graph_ = build_vision_graph(*config.vision_config, options);
    VLR_ASSIGN_OR_RETURN(r->vision_, Executor::create(*r->vision_graph_, weights, stream));
  }
  return r;
}

Result<ModelRunner::Sections> ModelRunner::make_sections(TextPass pass, const WeightLookup& weights,
                                                         WeightSupply* stream) {
  const GraphOptions host_options{.dtype = DType::kF32, .quant = options_.quant};
  Sections out;
  for (const Stretch& s : stretches_of(num_layers(), host_layers_)) {
    const bool only_head = s.layers.begin == s.layers.end && !s.layers.embedding;
    if (only_head && pass == TextPass::kPrefix) continue;
    Section& section = out.emplace_back();
    section.layers = s.layers;
    section.on_host = s.on_host;
    section.graph = build_text_graph(config_, pass, s.layers, s.on_host ? host_options : options_);
    VLR_ASSIGN_OR_RETURN(section.executor,
                         Executor::create(section.graph, weights, s.on_host ? nullptr : stream));
  }
  return out;
}

std::vector<const Graph*> ModelRunner::graphs() const {
  std::vector<const Graph*> out;
  for (const Sections* sections : {&score_, &prefix_}) {
    for (const Section& s : *sections) {
      if (!s.on_host) out.push_back(&s.graph);
    }
  }
  if (vision_graph_) out.push_back(&*vision_graph_);
  return out;
}

/// A value as f32 on the host, contiguous, for the observer.
Status ModelRunner::observe(std::string_view name, const ConstTensor& t) const {
  if (observers_.wants_value && !observers_.wants_value(name)) return {};
  if (t.dtype != DType::kF32 && t.dtype != DType::kBF16 && t.dtype != DType::kF16) return {};
  int64_t extent = t.numel() > 0 ? 1 : 0;
  for (int axis = 0; axis < t.rank && extent > 0; ++axis)
    extent += (t.dim(axis) - 1) * t.stride(axis);
  std::vector<std::byte> bytes(static_cast<size_t>(extent * dtype_bytes(t.dtype)));
  VLR_RETURN_IF_ERROR(device_.copy(bytes.data(), t.data, std::ssize(bytes)));
  VLR_RETURN_IF_ERROR(device_.synchronize());
  ConstTensor host = t;
  host.data = bytes.data();
  std::vector<float> values(static_cast<size_t>(t.numel()));
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t rest = i, at = 0;
    for (int axis = t.rank - 1; axis >= 0; --axis) {
      at += rest % t.dim(axis) * t.stride(axis);
      rest /= t.dim(axis);
    }
    values[static_cast<size_t>(i)] = load_f32(host, at);
  }
  observers_.on_value(name, std::span(t.dims.data(), static_cast<size_t>(t.rank)), values.data());
  return {};
}

/// What observers know a run by.
std::string ModelRunner::next_name(std::string_view kind) {
  const auto counter = runs_.try_emplace(std::string(kind), 0).first;
  return fmt::format("{}.{}", kind, counter->second++);
}

Status ModelRunner::run(const Executor& executor, RunArgs& args, std::string_view kind) {
  const std::string name = next_name(kind);
  args.device = &device_;
  args.row_chunk = row_chunk;
  Context& ctx = device_.context();
  VLR_ASSIGN_OR_RETURN(const RunPlan plan, executor.plan(args, ctx));
  VLR_RETURN_IF_ERROR(arena_.reserve(plan.total()).with_context(name));
  if (device_.only_plans()) return {};
  return run_planned(executor, args, plan, arena_.bytes(), ctx, name);
}

Status ModelRunner::run_planned(const Executor& executor, RunArgs& args, const RunPlan& plan,
                                std::span<std::byte> arena, Context& ctx, const std::string& name) {
  std::vector<NodeTime> times;
  std::vector<CopyTime> copies;
  if (observers_.on_node) args.times = &times;
  if (observers_.on_copy) args.copies = &copies;
  if (observers_.on_value) {
    args.on_value = [&](std::string_view value, const ConstTensor& t) {
      return observe(fmt::format("{}/{}", name, value), t);
    };
  }
  VLR_RETURN_IF_ERROR(executor.run(args, plan, arena, ctx).with_context(name));
  for (const NodeTime& t : times) {
    observers_.on_node({.run = name,
                        .name = std::string(t.name),
                        .op = std::string(t.op),
                        .seconds = t.seconds,
                        .flops = t.cost.flops,
                        .bytes = t.cost.bytes});
  }
  for (const CopyTime& c : copies) {
    observers_.on_copy({.run = name,
                        .name = std::string(c.name),
                        .start = c.start,
                        .seconds = c.seconds,
                        .bytes = static_cast<double>(c.bytes)});
  }
  return {};
}

namespace {

/// ops::Convert by all threads.
Status convert_rows(const Tensor& from, const Tensor& to, Context& ctx) {
  constexpr int64_t kRows = 64;
  const int64_t rows = from.dim(0), parts = (rows + kRows - 1) / kRows;
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

/// The device's rows, in f32; waits until they are there.
Status ModelRunner::to_host(const Tensor& from, const Tensor& to) {
  Tensor staged = from;
  staged.data = carrier_.data();
  staged.device = Device::kCpu;
  VLR_RETURN_IF_ERROR(device_.copy(staged.data, from.data, from.bytes()));
  VLR_RETURN_IF_ERROR(device_.synchronize());
  return convert_rows(staged, to, host_->context());
}

/// The host's rows, in the device's dtype, in the order of the stream. Nothing that is in the
/// stream reads the carrier any more: to_host() waited for it.
Status ModelRunner::to_device(const Tensor& from, const Tensor& to) {
  Tensor staged = to;
  staged.data = carrier_.data();
  staged.device = Device::kCpu;
  VLR_RETURN_IF_ERROR(convert_rows(from, staged, host_->context()));
  return device_.copy(to.data, staged.data, to.bytes());
}

/// Levels of DeepStack that layers of the host add.
std::vector<size_t> ModelRunner::host_levels() const {
  std::vector<size_t> out;
  if (!config_.vision_config) return out;
  for (size_t k = 0; k < config_.vision_config->deepstack_visual_indexes.size(); ++k) {
    if (host_layers_.contains(static_cast<int64_t>(k))) out.push_back(k);
  }
  return out;
}

/// For a pass of as many tokens and sequences, with so many visual tokens that the host's layers
/// read.
ModelRunner::Carried ModelRunner::carried(int64_t tokens, int64_t sequences, int64_t visual) const {
  if (host_layers_.empty()) return {};
  const int64_t width = config_.text_config.hidden_size, rows = tokens + sequences,
                element = dtype_bytes(options_.dtype);
  const auto f32 = static_cast<int64_t>(sizeof(float));
  const std::vector<size_t> levels = host_levels();
  if (levels.empty()) visual = 0;
  return {.device = round_up(rows * width * element, kAlign),
          .host = (rows + visual * std::ssize(levels)) * width * f32,
          .pinned = std::max(tokens, visual) * width * element};
}

Status ModelRunner::run_sections(const Sections& sections, TextRun& pass, std::string_view kind) {
  if (host_layers_.empty()) return run(*sections[0].executor, pass.device, kind);
  const std::string name = next_name(kind);
  pass.device.device = &device_;
  pass.device.row_chunk = pass.host.row_chunk = row_chunk;
  std::vector<RunPlan> plans;
  int64_t device_bytes = 0, host_bytes = 0;
  for (const Section& s : sections) {
    VLR_ASSIGN_OR_RETURN(RunPlan plan,
                         s.executor->plan(s.on_host ? pass.host : pass.device, context(s)));
    int64_t& most = s.on_host ? host_bytes : device_bytes;
    most = std::max(most, round_up(plan.total(), kAlign));
    plans.push_back(std::move(plan));
  }
  const int64_t tokens = size_of(pass.host.sizes, Sym::kTokens),
                sequences = size_of(pass.host.sizes, Sym::kSequences),
                visual = size_of(pass.host.sizes, Sym::kVisualTokens),
                width = config_.text_config.hidden_size;
  const Carried bytes = carried(tokens, sequences, visual);
  VLR_RETURN_IF_ERROR(arena_.reserve(device_bytes + bytes.device).with_context(name));
  VLR_RETURN_IF_ERROR(host_arena_.reserve(host_bytes + bytes.host).with_context(name));
  if (device_.only_plans()) return {};
  if (bytes.pinned > carrier_.size()) {
    VLR_RETURN_IF_ERROR(device_.synchronize());  // a copy may still read it
    VLR_RETURN_IF_ERROR(carrier_.reserve(bytes.pinned).with_context(name));
  }

  // What is carried lies behind what the sections work in.
  const auto bind_x = [&](RunArgs& args, std::byte* at, DType dtype, Device device) {
    args.bound["x"] = Tensor(at, dtype, {tokens, width}, device);
    args.bound["x.final"] = Tensor(at + args.bound["x"].bytes(), dtype, {sequences, width}, device);
  };
  std::byte* const on_host = host_arena_.data() + host_bytes;
  bind_x(pass.device, arena_.data() + device_bytes, options_.dtype, device_.kind());
  bind_x(pass.host, on_host, DType::kF32, Device::kCpu);
  int64_t row = tokens + sequences;
  for (const size_t k : host_levels()) {
    const Tensor to(on_host + row * width * static_cast<int64_t>(sizeof(float)), DType::kF32,
                    {visual, width});
    pass.host.bound[feature_name(k + 1)] = to;
    if (visual > 0) {
      const Tensor all = pass.device.bound.at(feature_name(k + 1));
      VLR_RETURN_IF_ERROR(to_host(all.slice(0, pass.first_visual, visual), to));
    }
    row += visual;
  }

  for (size_t i = 0; i < sections.size(); ++i) {
    const Section& s = sections[i];
    RunArgs& args = s.on_host ? pass.host : pass.device;
    if (i > 0) {
      const char* const x = s.layers.begin < num_layers() ? "x" : "x.final";
      const RunArgs& before = s.on_host ? pass.device : pass.host;
      const Tensor from = before.bound.at(x), to = args.bound.at(x);
      VLR_RETURN_IF_ERROR(s.on_host ? to_host(from, to) : to_device(from, to));
    }
    const std::span<std::byte> arena =
        s.on_host ? host_arena_.bytes().first(static_cast<size_t>(host_bytes))
                  : arena_.bytes().first(static_cast<size_t>(device_bytes));
    VLR_RETURN_IF_ERROR(run_planned(*s.executor, args, plans[i], arena, context(s), name));
  }
  return {};
}

Result<int64_t> ModelRunner::run_vision(std::span<const VisionInput> inputs, int64_t batch_patches,
                                        VisionFeatures& features, int64_t more_rows) {
  features.rows = 0;
  if (inputs.empty() && more_rows == 0) return int64_t{0};
  if (!config_.vision_config)
    return {Code::kInvalidArgument, "this checkpoint has no vision tower"};
  const VisionConfig& c = *config_.vision_config;
  const int64_t factor = c.spatial_merge_size * c.spatial_merge_size, width = c.out_hidden_size;
  const int64_t row_bytes = width * dtype_bytes(options_.dtype);
  for (const VisionInput& input : inputs) features.rows += input.num_patches() / factor;
  features.rows += more_rows;
  while (features.levels.size() < 1 + c.deepstack_visual_indexes.size())
    features.levels.push_back(device_.memory("vision features"));
  for (Buffer& level : features.levels)
    VLR_RETURN_IF_ERROR(level.reserve(features.rows * row_bytes));

  // Frames are independent, so a batch may end after any of them: an input longer than the budget
  // is cut.
  struct Piece {
    const VisionInput* input;
    int64_t first_frame, frames;
  };
  int64_t row = 0, num_batches = 0;
  std::vector<Piece> batch;
  int64_t patches = 0;
  const auto flush = [&]() -> Status {
    if (batch.empty()) return {};
    VisionPositions positions;
    std::vector<const void*> pixels;
    std::vector<int64_t> pixel_bytes;
    std::vector<bool> pinned;
    std::vector<std::shared_ptr<const void>> owners;
    for (const Piece& p : batch) {
      positions.append(c, p.frames, p.input->grid_h, p.input->grid_w);
      const int64_t frame = p.input->grid_h * p.input->grid_w * c.patch_dim();
      pixels.push_back(p.input->patches.data() + p.first_frame * frame);
      pixel_bytes.push_back(p.frames * frame);
      pinned.push_back(p.input->owner != nullptr);
      owners.push_back(p.input->owner);
    }
    std::vector<int32_t> axes = positions.rows;
    axes.insert(axes.end(), positions.columns.begin(), positions.columns.end());
    const std::vector<int32_t> tiles = ops::attention_tiles(positions.segments, false);
    const std::vector<ops::AttentionSegment>& segments = positions.segments;
    Inputs in;
    in.add("pos_indices", positions.pos_indices, {patches, 4});
    in.add("pos_weights", positions.pos_weights, {patches, 4});
    in.add("positions", axes, {2, patches});
    in.add("rope.axis", vision_pairs_.axis, {std::ssize(vision_pairs_.axis)});
    in.add("rope.inv_freq", vision_pairs_.inv_freq, {std::ssize(vision_pairs_.inv_freq)});
    in.add_bytes("segments", segments.data(),
                 Tensor(nullptr, DType::kI32, {std::ssize(segments), 6}));
    in.add("tiles", tiles, {std::ssize(tiles) / 2, 2});
    // Last, so that pinned ones need no staging.
    in.add_pieces("patches", std::move(pixels), std::move(pixel_bytes), std::move(pinned),
                  Tensor(nullptr, DType::kU8, {patches, c.patch_dim()}));
    RunArgs args;
    size_of(args.sizes, Sym::kPatches) = patches;
    Slot& slot = vision_slots_[static_cast<size_t>(next_vision_)];
    next_vision_ = (next_vision_ + 1) % kInFlight;
    VLR_RETURN_IF_ERROR(in.place(device_, slot, args));
    slot.owners = std::move(owners);
    for (size_t level = 0; level < features.levels.size(); ++level) {
      args.bound[feature_name(level)] =
          Tensor(features.levels[level].data() + row * row_bytes, options_.dtype,
                 {patches / factor, width}, device_.kind());
    }
    args.segments.emplace_back(segments,
                               ops::AttentionTable{args.bound["segments"], args.bound["tiles"]});
    VLR_RETURN_IF_ERROR(run(*vision_, args, "vision"));
    VLR_ASSIGN_OR_RETURN(slot.done, device_.mark());
    row += patches / factor;
    ++num_batches;
    batch.clear();
    patches = 0;
    return {};
  };
  for (const VisionInput& input : inputs) {
    const int64_t frame = input.grid_h * input.grid_w;
    for (int64_t f = 0; f < input.grid_t;) {
      if (patches > 0 && patches + frame > batch_patches) VLR_RETURN_IF_ERROR(flush());
      const int64_t room = std::max<int64_t>(1, (batch_patches - patches) / frame);
      const int64_t frames = std::min(input.grid_t - f, room);
      batch.push_back({&input, f, frames});
      patches += frames * frame;
      f += frames;
    }
  }
  VLR_RETURN_IF_ERROR(flush());
  return num_batches;
}

/// Calls copy(level's bytes on the device, host memory, count) for what lies side by side in both.
template <class Copy>
Status ModelRunner::for_each_piece(std::span<const std::span<std::byte>> pieces,
                                   const VisionFeatures& features, int64_t first, int64_t rows,
                                   const Copy& copy) const {
  const int64_t row_bytes = feature_row_bytes() / std::ssize(features.levels);
  auto piece = pieces.begin();
  int64_t used = 0;  // of the piece
  for (const Buffer& level : features.levels) {
    std::byte* at = level.data() + first * row_bytes;
    for (int64_t left = rows * row_bytes; left > 0;) {
      if (piece == pieces.end())
        return {Code::kInternal, "vision features: host memory is too short for them"};
      const int64_t count = std::min(left, std::ssize(*piece) - used);
      VLR_RETURN_IF_ERROR(copy(at, piece->data() + used, count));
      at += count;
      left -= count;
      used += count;
      if (used == std::ssize(*piece)) {
        ++piece;
        used = 0;
      }
    }
  }
  return {};
}

Status ModelRunner::save_features(const VisionFeatures& features, int64_t first, int64_t rows,
                                  std::span<const std::span<std::byte>> to) {
  return for_each_piece(to, features, first, rows,
                        [&](const std::byte* device, std::byte* host, int64_t count) {
                          return device_.copy(host, device, count);
                        });
}

Status ModelRunner::load_features(std::span<const std::span<std::byte>> from, int64_t first,
                                  int64_t rows, VisionFeatures& features) {
  return for_each_piece(from, features, first, rows,
                        [&](std::byte* device, const std::byte* host, int64_t count) {
                          return device_.copy(device, host, count);
                        });
}

int64_t ModelRunner::weight_bytes() const { return device_.budget().bytes("weights"); }

int64_t ModelRunner::prefix_row_bytes() const {
  const TextConfig& c = config_.text_config;
  return (num_layers() - std::ssize(host_layers_)) * 2 * c.num_key_value_heads * c.head_dim *
         dtype_bytes(options_.dtype);
}

int64_t ModelRunner::host_prefix_row_bytes() const {
  const TextConfig& c = config_.text_config;
  return std::ssize(host_layers_) * 2 * c.num_key_value_heads * c.head_dim *
         dtype_bytes(DType::kF32);
}

Status ModelRunner::reserve_prefixes(int64_t rows) {
  if (rows <= prefix_capacity_) return {};
  prefix_capacity_ = 0;
  recordings_.clear();  // they know the old address
  VLR_RETURN_IF_ERROR(prefix_memory_.reserve(rows * prefix_row_bytes()));
  VLR_RETURN_IF_ERROR(host_prefix_memory_.reserve(rows * host_prefix_row_bytes()));
  prefix_capacity_ = rows;
  return {};
}

Tensor ModelRunner::prefix_rows(int64_t layer, int64_t first, int64_t count) const {
  const TextConfig& c = config_.text_config;
  const int64_t width = 2 * c.num_key_value_heads * c.head_dim;
  const bool on_host = host_layers_.contains(layer);
  // Layers of one place lie one after the other.
  const int64_t hosts = std::distance(host_layers_.begin(), host_layers_.lower_bound(layer));
  const int64_t index = on_host ? hosts : layer - hosts;
  const DType dtype = on_host ? DType::kF32 : options_.dtype;
  std::byte* data = (on_host ? host_prefix_memory_ : prefix_memory_).data();
  if (data) data += (index * prefix_capacity_ + first) * width * dtype_bytes(dtype);
  return Tensor(data, dtype, {count, width}, on_host ? Device::kCpu : device_.kind());
}

/// A batch's size as its recording has it: the next multiple of a step that grows with it.
int64_t ModelRunner::padded(int64_t count, int64_t tokens) const {
  if (!device_.is_gpu() || tokens > recordings.max_tokens || observers_.on_node ||
      observers_.on_value || !host_layers_.empty())
    return count;
  return round_up(count, count <= 16 ? 4 : count <= 128 ? 16 : 32);
}

Status ModelRunner::run_text(std::span<const TextInput> batch, const VisionFeatures& features,
                             TextPass pass, int64_t first_prefix_row, Slot& slot) {
  const TextConfig& c = config_.text_config;
  const bool scoring = pass == TextPass::kScore;
  int64_t own_tokens = 0;
  for (const TextInput& s : batch) own_tokens += static_cast<int64_t>(s.ids.size());
  // A prefix pass writes exactly its rows. Batches with pictures are never small.
  const bool may_record = scoring && features.rows == 0 && padded(1, own_tokens) > 1;
  const int64_t tokens = may_record ? padded(own_tokens, own_tokens) : own_tokens;
  const int64_t sequences = may_record ? padded(std::ssize(batch), own_tokens) : std::ssize(batch);

  std::vector<int32_t> ids, visual_rows, positions(static_cast<size_t>(3 * tokens)), last_rows,
      last_positions(static_cast<size_t>(3 * sequences));
  std::vector<ops::AttentionSegment> all, final;
  for (size_t b = 0; b < batch.size(); ++b) {
    const TextInput& s = batch[b];
    const auto begin = static_cast<int32_t>(ids.size()),
               length = static_cast<int32_t>(s.ids.size());
    const auto prefix_row = static_cast<int32_t>(s.prefix_row),
               prefix_len = static_cast<int32_t>(s.prefix_len);
    ids.insert(ids.end(), s.ids.begin(), s.ids.end());
    visual_rows.insert(visual_rows.end(), s.visual_rows.begin(), s.visual_rows.end());
    for (int64_t axis = 0; axis < 3; ++axis) {
      const int32_t* from = s.positions.data() + axis * s.positions_stride + s.offset;
      std::copy_n(from, length, positions.data() + axis * tokens + begin);
      last_positions[static_cast<size_t>(axis * sequences) + b] = from[length - 1];
    }
    last_rows.push_back(begin + length - 1);
    all.push_back({.q_begin = begin,
                   .q_len = length,
                   .k_begin = begin,
                   .k_len = length,
                   .prefix_begin = prefix_row,
                   .prefix_len = prefix_len});
    final.push_back({.q_begin = static_cast<int32_t>(b),
                     .q_len = 1,
                     .k_begin = begin,
                     .k_len = length,
                     .prefix_begin = prefix_row,
                     .prefix_len = prefix_len});
  }
  // Padding: tokens of no sequence, and sequences without queries.
  ids.resize(static_cast<size_t>(tokens), 0);
  visual_rows.resize(static_cast<size_t>(tokens), -1);
  last_rows.resize(static_cast<size_t>(sequences), 0);
  all.resize(static_cast<size_t>(sequences));
  final.resize(static_cast<size_t>(sequences));
  std::vector<int32_t> all_tiles = ops::attention_tiles(all, true),
                       final_tiles = ops::attention_tiles(final, true);
  const auto pad_tiles = [&](std::vector<int32_t>& tiles, int64_t count) {
    tiles.resize(static_cast<size_t>(2 * std::max(count, std::ssize(tiles) / 2)), -1);
  };
  if (may_record) {
    // Every sequence has at most one tile that is not full.
    pad_tiles(all_tiles, sequences + tokens / ops::kAttentionTile);
    pad_tiles(final_tiles, sequences);
  }

  Inputs in;
  const auto table = [](const auto& segments) {
    return Tensor(nullptr, DType::kI32, {std::ssize(segments), 6});
  };
  in.add("ids", ids, {tokens});
  in.add("visual_row", visual_rows, {tokens});
  in.add("positions", positions, {3, tokens});
  in.add("rope.axis", text_pairs_.axis, {std::ssize(text_pairs_.axis)});
  in.add("rope.inv_freq", text_pairs_.inv_freq, {std::ssize(text_pairs_.inv_freq)});
  in.add_bytes("segments.all", all.data(), table(all));
  in.add("tiles.all", all_tiles, {std::ssize(all_tiles) / 2, 2});
  in.add_bytes("segments.final", final.data(), table(final));
  in.add("tiles.final", final_tiles, {std::ssize(final_tiles) / 2, 2});
  if (scoring) {
    in.add("last_rows", last_rows, {sequences});
    in.add("last_positions", last_positions, {3, sequences});
  }
  TextRun run;
  RunArgs& args = run.device;
  std::vector<int32_t> host_visual_rows;
  if (!host_layers_.empty()) {
    // Few of a wave's features are a batch's: those that the host's layers get are counted from the
    // first one on.
    int64_t end = 0;
    run.first_visual = features.rows;
    for (const int32_t row : visual_rows) {
      if (row < 0) continue;
      run.first_visual = std::min<int64_t>(run.first_visual, row);
      end = std::max<int64_t>(end, row + 1);
    }
    for (const int32_t row : visual_rows) {
      host_visual_rows.push_back(row < 0 ? row : row - static_cast<int32_t>(run.first_visual));
    }
    size_of(run.host.sizes, Sym::kVisualTokens) = std::max<int64_t>(0, end - run.first_visual);
    in.add("host.visual_row", host_visual_rows, {tokens});
  }
  VLR_RETURN_IF_ERROR(in.place(device_, slot, args, host_layers_.empty() ? nullptr : &run.host));
  const int64_t prefix_count = scoring ? prefix_capacity_ : tokens;
  size_of(args.sizes, Sym::kTokens) = tokens;
  size_of(args.sizes, Sym::kSequences) = sequences;
  size_of(args.sizes, Sym::kVisualTokens) = features.rows;
  size_of(args.sizes, Sym::kPrefixTokens) = prefix_count;
  if (config_.vision_config) {
    for (size_t level = 0; level <= config_.vision_config->deepstack_visual_indexes.size();
         ++level) {
      args.bound[feature_name(level)] =
          Tensor(features.rows > 0 ? features.levels[level].data() : nullptr, options_.dtype,
                 {features.rows, c.hidden_size}, device_.kind());
    }
  }
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    RunArgs& of = host_layers_.contains(layer) ? run.host : args;
    of.bound[fmt::format("prefix_kv.{}", layer)] =
        prefix_rows(layer, scoring ? 0 : first_prefix_row, prefix_count);
  }
  if (!host_layers_.empty()) {
    run.host.bound["visual_row"] = run.host.bound["host.visual_row"];
    for (const Sym s : {Sym::kTokens, Sym::kSequences, Sym::kPrefixTokens})
      size_of(run.host.sizes, s) = size_of(args.sizes, s);
  }
  for (RunArgs* to : {&run.device, &run.host}) {
    to->segments.emplace_back(
        all, ops::AttentionTable{to->bound["segments.all"], to->bound["tiles.all"]});
    to->segments.emplace_back(
        final, ops::AttentionTable{to->bound["segments.final"], to->bound["tiles.final"]});
  }
  if (!scoring) {
    VLR_RETURN_IF_ERROR(run_sections(prefix_, run, "prefix"));
  } else {
    const int64_t out_bytes = sequences * static_cast<int64_t>(sizeof(float));
    VLR_RETURN_IF_ERROR(slot.out.reserve(std::max<int64_t>(out_bytes, 4096)));
    args.bound["log_odds"] = Tensor(slot.out.data(), DType::kF32, {sequences}, device_.kind());
    if (may_record) {
      const std::string key =
          fmt::format("{} {} {} {} {} {}", tokens, sequences, fmt::ptr(slot.memory.data()),
                      fmt::ptr(slot.out.data()), fmt::ptr(prefix_memory_.data()), prefix_capacity_);
      VLR_RETURN_IF_ERROR(replay_or_run(*score_[0].executor, args, "text", key));
    } else {
      VLR_RETURN_IF_ERROR(run_sections(score_, run, "text"));
    }
    VLR_RETURN_IF_ERROR(slot.out_staging.reserve(std::max<int64_t>(out_bytes, 4096)));
    VLR_RETURN_IF_ERROR(device_.copy(slot.out_staging.data(), slot.out.data(), out_bytes));
  }
  VLR_ASSIGN_OR_RETURN(slot.done, device_.mark());
  return {};
}

/// Runs a batch of a size class op by op the first time, records it the second time, and from then
/// on replays the recording. Everything that a recording knows by address is in its key, but for
/// the arena: when that moves, all recordings go.
Status ModelRunner::replay_or_run(const Executor& executor, RunArgs& args, std::string_view kind,
                                  const std::string& key) {
  if (device_.only_plans()) return run(executor, args, kind);
  const std::string full = fmt::format("{} {}", key, fmt::ptr(arena_.data()));
  auto [it, first_time] = recordings_.try_emplace(full);
  if (first_time) {
    if (recordings_.size() > recordings.max_recordings) {
      recordings_.clear();
      recordings_.try_emplace(full);
    }
    return run(executor, args, kind);
  }
  if (!it->second) {
    Context& ctx = device_.context();
    args.row_chunk = row_chunk;
    VLR_ASSIGN_OR_RETURN(const RunPlan plan, executor.plan(args, ctx));
    if (plan.total() > arena_.size()) return run(executor, args, kind);
    auto recording = device_.record([&] { return executor.run(args, plan, arena_.bytes(), ctx); });
    if (!recording) return recording.error().with_context(kind);
    it->second = *std::move(recording);
  }
  ++num_replays_;
  return device_.launch(*it->second);
}

Status ModelRunner::run_prefixes(std::span<const TextInput> batch, const VisionFeatures& features,
                                 int64_t first_row) {
  Slot& slot = prefix_slots_[static_cast<size_t>(next_prefix_)];
  next_prefix_ = (next_prefix_ + 1) % kInFlight;
  return run_text(batch, features, TextPass::kPrefix, first_row, slot);
}

Result<ModelRunner::Ticket> ModelRunner::start_scores(std::span<const TextInput> batch,
                                                      const VisionFeatures& features) {
  const Ticket ticket{.slot = next_text_, .sequences = batch.size()};
  next_text_ = (next_text_ + 1) % kInFlight;
  VLR_RETURN_IF_ERROR(run_text(batch, features, TextPass::kScore, 0,
                               text_slots_[static_cast<size_t>(ticket.slot)]));
  return ticket;
}

Result<std::vector<float>> ModelRunner::finish(const Ticket& ticket) {
  Slot& slot = text_slots_[static_cast<size_t>(ticket.slot)];
  VLR_RETURN_IF_ERROR(device_.wait(slot.done));
  if (device_.only_plans()) return std::vector<float>(ticket.sequences);
  const auto* values = reinterpret_cast<const float*>(slot.out_staging.data());
  return std::vector<float>(values, values + ticket.sequences);
}

Result<std::vector<float>> ModelRunner::run_scores(std::span<const TextInput> batch,
                                                   const VisionFeatures& features) {
  VLR_ASSIGN_OR_RETURN(const Ticket ticket, start_scores(batch, features));
  return finish(ticket);
}

RunArgs ModelRunner::text_plan_args(
    const TextSizes& sizes, std::array<std::vector<ops::AttentionSegment>, 2>& segments) const {
  RunArgs args;
  args.row_chunk = row_chunk;
  size_of(args.sizes, Sym::kTokens) = sizes.tokens;
  size_of(args.sizes, Sym::kSequences) = sizes.sequences;
  size_of(args.sizes, Sym::kPrefixTokens) = sizes.prefix_tokens;
  size_of(args.sizes, Sym::kVisualTokens) = sizes.visual_tokens;
  segments = {equal_segments(sizes, false), equal_segments(sizes, true)};
  args.segments = {segments[0], segments[1]};
  return args;
}

Result<ScorePlan> ModelRunner::plan_scores(const TextSizes& sizes) const {
  std::array<std::vector<ops::AttentionSegment>, 2> segments;
  const RunArgs args = text_plan_args(sizes, segments);
  ScorePlan out;
  for (const Section& s : score_) {
    VLR_ASSIGN_OR_RETURN(RunPlan plan, s.executor->plan(args, context(s)));
    if (s.on_host) {
      out.host_bytes = std::max(out.host_bytes, round_up(plan.total(), kAlign));
    } else if (!out.graph || plan.total() > out.run.total()) {
      out.run = std::move(plan);
      out.graph = &s.graph;
    }
  }
  const Carried bytes = carried(sizes.tokens, sizes.sequences, sizes.visual_tokens);
  out.carried_bytes = bytes.device;
  out.host_bytes += bytes.host;
  out.pinned_bytes = bytes.pinned;
  return out;
}

Result<RunPlan> ModelRunner::plan_vision(int64_t patches) const {
  if (!vision_) return {Code::kInvalidArgument, "this checkpoint has no vision tower"};
  RunArgs args;
  args.row_chunk = row_chunk;
  size_of(args.sizes, Sym::kPatches) = patches;
  const std::vector<ops::AttentionSegment> segments = {{.q_begin = 0,
                                                        .q_len = static_cast<int32_t>(patches),
                                                        .k_begin = 0,
                                                        .k_len = static_cast<int32_t>(patches),
                                                        .prefix_begin = 0,
                                                        .prefix_len = 0}};
  args.segments = {segments};
  return vision_->plan(args, device_.context());
}

int64_t ModelRunner::text_input_bytes(const TextSizes& s) const {
  // ids, visual rows, three positions a token; two segments, tiles, last rows and positions a
  // sequence; results. Each array is rounded up.
  // The host's layers have visual rows of their own.
  return (host_layers_.empty() ? 5 : 6) * 4 * s.tokens +
         (2 * 24 + 3 * 8 + 4 * 4 + 4) * s.sequences + 8 * (s.tokens / ops::kAttentionTile) +
         16 * kAlign + 4096;
}

int64_t ModelRunner::vision_input_bytes(int64_t patches) const {
  return config_.vision_config
             ? patches * (config_.vision_config->patch_dim() + 16 + 16 + 8 + 4) + 16 * kAlign
             : 0;
}

int64_t ModelRunner::feature_row_bytes() const {
  if (!config_.vision_config) return 0;
  return (1 + std::ssize(config_.vision_config->deepstack_visual_indexes)) *
         config_.text_config.hidden_size * dtype_bytes(options_.dtype);
}

#if VLR_WITH_CUDA

namespace {

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

}  // namespace

/// The matrix products of both towers alone, over random numbers, at the top of every bucket of
/// rows that batches up to these sizes fall into, which run in chunks of rows.
Result<ModelRunner::Measuring> ModelRunner::plan_measuring(int64_t max_tokens,
                                                           int64_t max_patches) const {
  constexpr int64_t kMostScratch = int64_t{1} << 30;  // verifies thousands of rows
  if (row_chunk > 0) {
    max_tokens = std::min(max_tokens, row_chunk);
    max_patches = std::min(max_patches, row_chunk);
  }
  const Context& ctx = device_.context();
  // A small model gains less than measuring takes: every fifth bucket, and the others borrow.
  const bool coarse = weight_bytes() < kSmallModelBytes;
  const auto sizes_up_to = [coarse](int64_t most) {
    std::vector<int64_t> out;
    int index = 0;
    for (const int64_t bucket : cuda::Blas::buckets()) {
      if (coarse && index++ % 5 != 4 && bucket < most) continue;
      out.push_back(std::min(bucket, most));
      if (bucket >= most) break;
    }
    return out;
  };
  Measuring out;
  int64_t outputs = 0;
  const auto add = [&](const Executor& executor, Sizes sizes) -> Status {
    Measuring::Run run{.executor = &executor, .args = {}, .plan = {}};
    run.args.sizes = sizes;
    // No attention runs, so its tables may be empty.
    run.args.segments.assign(static_cast<size_t>(executor.graph().num_segment_slots()),
                             AttentionInput(std::span<const ops::AttentionSegment>()));
    VLR_ASSIGN_OR_RETURN(run.plan, executor.plan(run.args, ctx));
    // The first of the products that are alike: layers differ in weights only, which may have to
    // come from far.
    const Graph& graph = executor.graph();
    auto firsts = std::make_shared<std::set<const Node*>>();
    std::set<std::string> kinds;
    for (const Node& node : graph.nodes()) {
      if (node.op == "linear_w8a8" && graph.info(node.inputs[0]).dtype == DType::kI8)
        continue;  // no library's
      if (!node.op.starts_with("linear") && node.op != "patch_embed") continue;
      std::string kind(node.op);
      const auto add_kind = [&](Value v) {
        const Tensor t = v.defined() ? run.plan.tensors[static_cast<size_t>(v.id)] : Tensor{};
        kind += fmt::format(" {} {}", describe(t), t.rank > 1 ? t.stride(0) : 0);
      };
      for (const Value v : node.inputs) add_kind(v);
      add_kind(node.output);
      // Names of places tell apart what is alike in all that: epilogues.
      if (const size_t dot = node.name.rfind('.'); dot != node.name.npos)
        kind += node.name.substr(dot);
      if (kinds.insert(kind).second) firsts->insert(&node);
    }
    run.args.only = [firsts](const Node& node) { return firsts->contains(&node); };
    out.arena_bytes = std::max(out.arena_bytes, run.plan.total());
    for (size_t i = 0; i < run.plan.tensors.size(); ++i) {
      if (executor.graph().values()[i].kind == ValueKind::kBound)
        out.bound_bytes = std::max(out.bound_bytes, run.plan.tensors[i].bytes());
    }
    for (const Node& node : executor.graph().nodes()) {
      if (run.args.only(node))
        outputs = std::max(outputs, run.plan.tensors[static_cast<size_t>(node.output.id)].numel());
    }
    out.runs.push_back(std::move(run));
    return {};
  };
  for (const int64_t tokens : sizes_up_to(max_tokens)) {
    Sizes sizes{};
    size_of(sizes, Sym::kTokens) = tokens;
    size_of(sizes, Sym::kSequences) = std::min<int64_t>(tokens, 2048);
    for (const Section& s : score_) {
      if (!s.on_host) VLR_RETURN_IF_ERROR(add(*s.executor, sizes));
    }
  }
  if (vision_) {
    for (const int64_t patches : sizes_up_to(max_patches)) {
      Sizes sizes{};
      size_of(sizes, Sym::kPatches) = std::max<int64_t>(4, patches / 4 * 4);
      VLR_RETURN_IF_ERROR(add(*vision_, sizes));
    }
  }
  out.scratch_bytes = std::min(kMostScratch, cuda::Blas::measuring_bytes(outputs));
  out.least_scratch_bytes = cuda::Blas::measuring_bytes(outputs / 64);
  return out;
}

Result<int64_t> ModelRunner::measuring_bytes(int64_t max_tokens, int64_t max_patches) const {
  VLR_ASSIGN_OR_RETURN(const Measuring m, plan_measuring(max_tokens, max_patches));
  return round_up(m.arena_bytes, kAlign) + round_up(m.bound_bytes, kAlign) +
         round_up(m.scratch_bytes, kAlign);
}

Status ModelRunner::measure(int64_t max_tokens, int64_t max_patches) {
  if (!device_.is_gpu()) return {};
  VLR_ASSIGN_OR_RETURN(Measuring m, plan_measuring(max_tokens, max_patches));
  Context& ctx = device_.context();
  const MemoryBudget& budget = device_.budget();
  const int64_t room = budget.cap() - budget.used() - round_up(m.arena_bytes, kAlign) -
                       round_up(m.bound_bytes, kAlign);
  // Under a tight cap there is no room to compare results in; then cuBLASLt's first offer of the
  // kind that agrees is taken.
  if (room < m.least_scratch_bytes) return {};
  // One region stands for every bound tensor: nobody reads what a product leaves there.
  VLR_RETURN_IF_ERROR(arena_.reserve(m.arena_bytes));
  Buffer bound = device_.memory("measuring"), scratch = device_.memory("measuring");
  VLR_RETURN_IF_ERROR(bound.reserve(m.bound_bytes));
  VLR_RETURN_IF_ERROR(scratch.reserve(std::min(m.scratch_bytes, room / kAlign * kAlign)));
  if (device_.only_plans()) return {};
  for (Buffer* b : {&arena_, &bound}) {
    VLR_RETURN_IF_ERROR(fill_random(*b, options_.dtype, ctx));
  }
  ctx.blas->begin_measuring(scratch.bytes());
  Status status;
  for (Measuring::Run& run : m.runs) {
    for (size_t i = 0; i < run.plan.tensors.size(); ++i) {
      const ValueInfo& info = run.executor->graph().values()[i];
      if (info.kind != ValueKind::kBound) continue;
      run.args.bound[info.name] = run.plan.tensors[i];
      run.args.bound[info.name].data = bound.data();
    }
    status = run.executor->run(run.args, run.plan, arena_.bytes(), ctx);
    if (!status.ok()) break;
  }
  ctx.blas->end_measuring();
  VLR_RETURN_IF_ERROR(device_.synchronize());
  return status.with_context("measuring");
}

#else
Status ModelRunner::measure(int64_t, int64_t) { return {}; }
Result<int64_t> ModelRunner::measuring_bytes(int64_t, int64_t) const { return 0; }
#endif

}  // namespace vlr
