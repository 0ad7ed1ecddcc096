#include "engine/api/model_runner.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/vision_encoder.h"

namespace vlr {
namespace {

Tensor vector_view(const std::vector<int32_t>& v) {
  return Tensor(const_cast<int32_t*>(v.data()), DType::kI32, {static_cast<int64_t>(v.size())});
}
Tensor vector_view(const std::vector<float>& v) {
  return Tensor(const_cast<float*>(v.data()), DType::kF32, {static_cast<int64_t>(v.size())});
}
Tensor matrix_view(const std::vector<int32_t>& v, int64_t rows) {
  return Tensor(const_cast<int32_t*>(v.data()), DType::kI32,
                {rows, static_cast<int64_t>(v.size()) / rows});
}

}  // namespace

ModelRunner::ModelRunner(const ModelConfig& config, ThreadPool& threads, const ImplChoices& choices,
                         Observers observers)
    : config_(config), observers_(std::move(observers)) {
  ctx_.device = Device::kCpu;
  ctx_.threads = &threads;
  ctx_.choices = &choices;
}

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(const ModelConfig& config,
                                                         const WeightLookup& weights,
                                                         ThreadPool& threads,
                                                         const ImplChoices& choices,
                                                         Observers observers) {
  std::unique_ptr<ModelRunner> r(new ModelRunner(config, threads, choices, std::move(observers)));
  r->text_pairs_ = text_rotary_pairs(config.text_config);
  r->score_graph_ = build_text_graph(config, TextPass::kScore);
  r->prefix_graph_ = build_text_graph(config, TextPass::kPrefix);
  VLR_ASSIGN_OR_RETURN(r->score_, Executor::create(r->score_graph_, weights));
  VLR_ASSIGN_OR_RETURN(r->prefix_, Executor::create(r->prefix_graph_, weights));
  if (config.vision_config) {
    r->vision_pairs_ = vision_rotary_pairs(*config.vision_config);
    r->vision_graph_ = build_vision_graph(*config.vision_config);
    VLR_ASSIGN_OR_RETURN(r->vision_, Executor::create(*r->vision_graph_, weights));
  }
  r->prefixes_.layers.resize(static_cast<size_t>(config.text_config.num_hidden_layers));
  return r;
}

Status ModelRunner::run(const Executor& executor, RunArgs& args, std::string_view kind) {
  const auto counter = runs_.try_emplace(std::string(kind), 0).first;
  const std::string name = fmt::format("{}.{}", kind, counter->second++);
  std::vector<NodeTime> times;
  if (observers_.on_node) args.times = &times;
  if (observers_.on_value) {
    args.on_value = [&](std::string_view value, const ConstTensor& t) {
      const std::string full = fmt::format("{}/{}", name, value);
      if (observers_.wants_value && !observers_.wants_value(full)) return;
      if (t.dtype != DType::kF32) return;
      // Observers see contiguous data.
      std::vector<float> copy;
      const int64_t row = t.rank == 3 ? t.dim(1) * t.dim(2) : t.rank == 2 ? t.dim(1) : 1;
      if (!t.contiguous()) {
        for (int64_t r = 0; r < t.dim(0); ++r) {
          for (int64_t h = 0; h < (t.rank == 3 ? t.dim(1) : 1); ++h) {
            const float* from = t.row<float>(r) + (t.rank == 3 ? h * t.stride(1) : 0);
            copy.insert(copy.end(), from, from + row / (t.rank == 3 ? t.dim(1) : 1));
          }
        }
      }
      observers_.on_value(full, std::span(t.dims.data(), static_cast<size_t>(t.rank)),
                          t.contiguous() ? t.as<float>() : copy.data());
    };
  }
  VLR_ASSIGN_OR_RETURN(const RunPlan plan, executor.plan(args, ctx_));
  VLR_RETURN_IF_ERROR(arena_.reserve(plan.total()));
  VLR_RETURN_IF_ERROR(executor.run(args, plan, arena_.bytes(), ctx_).with_context(name));
  for (const NodeTime& t : times) {
    observers_.on_node({.run = name,
                        .name = std::string(t.name),
                        .op = std::string(t.op),
                        .seconds = t.seconds,
                        .flops = t.cost.flops,
                        .bytes = t.cost.bytes});
  }
  return {};
}

Result<VisionFeatures> ModelRunner::run_vision(std::span<const VisionInput> inputs,
                                               int64_t batch_patches) {
  VisionFeatures out;
  if (inputs.empty()) return out;
  if (!config_.vision_config)
    return {Code::kInvalidArgument, "this checkpoint has no vision tower"};
  const VisionConfig& c = *config_.vision_config;
  const int64_t factor = c.spatial_merge_size * c.spatial_merge_size, width = c.out_hidden_size;
  const int64_t row_bytes = width * static_cast<int64_t>(sizeof(float));
  for (const VisionInput& input : inputs) out.rows += input.num_patches() / factor;
  out.levels.resize(1 + c.deepstack_visual_indexes.size());
  for (HostBuffer& level : out.levels) VLR_RETURN_IF_ERROR(level.reserve(out.rows * row_bytes));

  // Frames are independent, so a batch may end after any of them: an input longer than the budget
  // is cut.
  struct Piece {
    const VisionInput* input;
    int64_t first_frame, frames;
  };
  int64_t row = 0;
  std::vector<Piece> batch;
  int64_t patches = 0;
  const auto flush = [&]() -> Status {
    if (batch.empty()) return {};
    VisionPositions positions;
    std::vector<uint8_t> pixels;
    pixels.reserve(static_cast<size_t>(patches * c.patch_dim()));
    for (const Piece& p : batch) {
      positions.append(c, p.frames, p.input->grid_h, p.input->grid_w);
      const auto frame = static_cast<size_t>(p.input->grid_h * p.input->grid_w * c.patch_dim());
      const auto from = p.input->patches.subspan(static_cast<size_t>(p.first_frame) * frame,
                                                 static_cast<size_t>(p.frames) * frame);
      pixels.insert(pixels.end(), from.begin(), from.end());
    }
    std::vector<int32_t> axes = positions.rows;
    axes.insert(axes.end(), positions.columns.begin(), positions.columns.end());
    RunArgs args;
    size_of(args.sizes, Sym::kPatches) = patches;
    args.bound["patches"] = Tensor(pixels.data(), DType::kU8, {patches, c.patch_dim()});
    args.bound["pos_indices"] = Tensor(positions.pos_indices.data(), DType::kI32, {patches, 4});
    args.bound["pos_weights"] = Tensor(positions.pos_weights.data(), DType::kF32, {patches, 4});
    args.bound["positions"] = matrix_view(axes, 2);
    args.bound["rope.axis"] = vector_view(vision_pairs_.axis);
    args.bound["rope.inv_freq"] = vector_view(vision_pairs_.inv_freq);
    for (size_t level = 0; level < out.levels.size(); ++level) {
      const std::string name = level == 0 ? "visual" : fmt::format("deepstack.{}", level - 1);
      args.bound[name] = Tensor(out.levels[level].bytes().data() + row * row_bytes, DType::kF32,
                                {patches / factor, width});
    }
    args.segments = {positions.segments};
    VLR_RETURN_IF_ERROR(run(*vision_, args, "vision"));
    row += patches / factor;
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
  return out;
}

int64_t ModelRunner::prefix_row_bytes() const {
  const TextConfig& c = config_.text_config;
  return c.num_hidden_layers * 2 * c.num_key_value_heads * c.head_dim *
         static_cast<int64_t>(sizeof(float));
}

Status ModelRunner::reset_prefixes(int64_t rows) {
  prefixes_.used = 0;
  for (HostBuffer& layer : prefixes_.layers) {
    VLR_RETURN_IF_ERROR(
        layer.reserve(rows * prefix_row_bytes() / config_.text_config.num_hidden_layers));
  }
  return {};
}

Status ModelRunner::run_text(std::span<const TextInput> batch, VisionFeatures& features,
                             TextPass pass, std::vector<float>& log_odds) {
  const TextConfig& c = config_.text_config;
  int64_t tokens = 0;
  for (const TextInput& s : batch) tokens += static_cast<int64_t>(s.ids.size());
  const auto sequences = static_cast<int64_t>(batch.size());
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

  const bool scoring = pass == TextPass::kScore;
  const int64_t kv_width = 2 * c.num_key_value_heads * c.head_dim;
  const int64_t prefix_rows = scoring ? prefixes_.used : tokens,
                first_prefix_row = scoring ? 0 : prefixes_.used;
  RunArgs args;
  size_of(args.sizes, Sym::kTokens) = tokens;
  size_of(args.sizes, Sym::kSequences) = sequences;
  size_of(args.sizes, Sym::kVisualTokens) = features.rows;
  size_of(args.sizes, Sym::kPrefixTokens) = prefix_rows;
  args.bound["ids"] = vector_view(ids);
  args.bound["visual_row"] = vector_view(visual_rows);
  args.bound["positions"] = matrix_view(positions, 3);
  args.bound["rope.axis"] = vector_view(text_pairs_.axis);
  args.bound["rope.inv_freq"] = vector_view(text_pairs_.inv_freq);
  if (config_.vision_config) {
    features.levels.resize(1 + config_.vision_config->deepstack_visual_indexes.size());
    for (size_t level = 0; level < features.levels.size(); ++level) {
      const std::string name = level == 0 ? "visual" : fmt::format("deepstack.{}", level - 1);
      args.bound[name] = Tensor(features.levels[level].bytes().data(), DType::kF32,
                                {features.rows, c.hidden_size});
    }
  }
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    std::byte* rows = prefixes_.layers[static_cast<size_t>(layer)].bytes().data();
    if (rows) rows += first_prefix_row * kv_width * static_cast<int64_t>(sizeof(float));
    args.bound[fmt::format("prefix_kv.{}", layer)] =
        Tensor(rows, DType::kF32, {prefix_rows, kv_width});
  }
  args.segments = {all, final};
  if (!scoring) {
    VLR_RETURN_IF_ERROR(run(*prefix_, args, "prefix"));
    prefixes_.used += tokens;
    return {};
  }
  log_odds.assign(batch.size(), 0.0f);
  args.bound["last_rows"] = vector_view(last_rows);
  args.bound["last_positions"] = matrix_view(last_positions, 3);
  args.bound["log_odds"] = vector_view(log_odds);
  return run(*score_, args, "text");
}

Status ModelRunner::run_prefixes(std::span<const TextInput> batch, VisionFeatures& features) {
  std::vector<float> none;
  return run_text(batch, features, TextPass::kPrefix, none);
}

Result<std::vector<float>> ModelRunner::run_scores(std::span<const TextInput> batch,
                                                   VisionFeatures& features) {
  std::vector<float> log_odds;
  VLR_RETURN_IF_ERROR(run_text(batch, features, TextPass::kScore, log_odds));
  return log_odds;
}

Result<RunPlan> ModelRunner::plan_scores(int64_t tokens, int64_t sequences, int64_t prefix_tokens,
                                         int64_t visual_tokens) {
  RunArgs args;
  size_of(args.sizes, Sym::kTokens) = tokens;
  size_of(args.sizes, Sym::kSequences) = sequences;
  size_of(args.sizes, Sym::kPrefixTokens) = prefix_tokens;
  size_of(args.sizes, Sym::kVisualTokens) = visual_tokens;
  // Attention's scratch depends on its table: equally long sequences stand for the batch.
  std::vector<ops::AttentionSegment> all, final;
  const auto length = static_cast<int32_t>(tokens / sequences),
             prefix = static_cast<int32_t>(prefix_tokens);
  for (int32_t b = 0; b < static_cast<int32_t>(sequences); ++b) {
    all.push_back({.q_begin = b * length,
                   .q_len = length,
                   .k_begin = b * length,
                   .k_len = length,
                   .prefix_begin = 0,
                   .prefix_len = prefix});
    final.push_back({.q_begin = b,
                     .q_len = 1,
                     .k_begin = b * length,
                     .k_len = length,
                     .prefix_begin = 0,
                     .prefix_len = prefix});
  }
  args.segments = {all, final};
  return score_->plan(args, ctx_);
}

Result<RunPlan> ModelRunner::plan_vision(int64_t patches) {
  if (!vision_) return {Code::kInvalidArgument, "this checkpoint has no vision tower"};
  RunArgs args;
  size_of(args.sizes, Sym::kPatches) = patches;
  const std::vector<ops::AttentionSegment> segments = {{.q_begin = 0,
                                                        .q_len = static_cast<int32_t>(patches),
                                                        .k_begin = 0,
                                                        .k_len = static_cast<int32_t>(patches),
                                                        .prefix_begin = 0,
                                                        .prefix_len = 0}};
  args.segments = {segments};
  return vision_->plan(args, ctx_);
}

}  // namespace vlr
