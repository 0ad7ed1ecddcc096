#include "engine/passes/vision_pass.h"

#include <algorithm>
#include <utility>

#include "engine/runtime/purposes.h"
#include "kernels/attention/attention.h"
#include "model/vision_encoder.h"

namespace vlr {
namespace {

constexpr std::string_view kSegments = "segments", kTiles = "tiles";

/// Calls copy(level's bytes on the device, host memory, count) for what lies side by side in both.
template <class Copy>
Status for_each_piece(std::span<const std::span<std::byte>> pieces, const VisionFeatures& features,
                      int64_t all_levels_bytes, int64_t first, int64_t rows, const Copy& copy) {
  const int64_t row_bytes = all_levels_bytes / std::ssize(features.levels);
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

}  // namespace

Status save_features(OpenDevice& device, const VisionFeatures& features, int64_t row_bytes,
                     int64_t first, int64_t rows, std::span<const std::span<std::byte>> to) {
  return for_each_piece(to, features, row_bytes, first, rows,
                        [&](const std::byte* level, std::byte* host, int64_t count) {
                          return device.copy(host, level, count);
                        });
}

Status load_features(OpenDevice& device, std::span<const std::span<std::byte>> from,
                     int64_t row_bytes, int64_t first, int64_t rows, VisionFeatures& features) {
  return for_each_piece(from, features, row_bytes, first, rows,
                        [&](std::byte* level, const std::byte* host, int64_t count) {
                          return device.copy(level, host, count);
                        });
}

VisionPass::VisionPass(const VisionConfig& config, PassRunner& runner, const GraphOptions& options)
    : config_(config),
      runner_(runner),
      options_(options),
      pairs_(vision_rotary_pairs(config)),
      graph_(build_vision_graph(config, options)),
      sets_(runner.device()) {
  using namespace vision_values;
  const Dim p = Sym::kPatches;
  inputs_ = {{kPosIndices, DType::kI32, {p, 4}},
             {kPosWeights, DType::kF32, {p, 4}},
             {kPositions, DType::kI32, {2, p}},
             {kRopeAxis, DType::kI32, {std::ssize(pairs_.axis)}},
             {kRopeInvFreq, DType::kF32, {std::ssize(pairs_.inv_freq)}},
             {kSegments, DType::kI32, {Sym::kFrames, kSegmentFields}},
             {kTiles, DType::kI32, {Sym::kTiles, 2}},
             // Last, so that pinned ones need no staging.
             {kPatches, DType::kU8, {p, config.patch_dim()}}};
}

Result<std::unique_ptr<VisionPass>> VisionPass::create(const VisionConfig& config,
                                                       const WeightLookup& weights,
                                                       PassRunner& runner,
                                                       const GraphOptions& options,
                                                       WeightSupply* stream) {
  std::unique_ptr<VisionPass> pass(new VisionPass(config, runner, options));
  VLR_ASSIGN_OR_RETURN(pass->executor_, Executor::create(pass->graph_, weights, stream));
  return pass;
}

Result<int64_t> VisionPass::run(std::span<const VisionInput> inputs, int64_t batch_patches,
                                VisionFeatures& features, int64_t more_rows) {
  const int64_t level_bytes = feature_row_bytes() / num_levels();
  features.rows = more_rows;
  for (const VisionInput& input : inputs)
    features.rows += input.num_patches() / config_.patches_per_token();
  if (features.rows == 0) return int64_t{0};
  while (std::ssize(features.levels) < num_levels())
    features.levels.push_back(runner_.device().memory(purposes::kFeatures));
  for (Buffer& level : features.levels)
    VLR_RETURN_IF_ERROR(level.reserve(features.rows * level_bytes));

  int64_t row = 0, num_batches = 0, patches = 0;
  std::vector<Piece> batch;
  const auto flush = [&]() -> Status {
    if (batch.empty()) return {};
    VLR_RETURN_IF_ERROR(run_batch(batch, features, row));
    row += patches / config_.patches_per_token();
    ++num_batches;
    batch.clear();
    patches = 0;
    return {};
  };
  // An input longer than the budget is cut.
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

Status VisionPass::run_batch(std::span<const Piece> batch, VisionFeatures& features,
                             int64_t first_row) {
  VisionPositions where;
  std::vector<InputPiece> pixels;
  std::vector<std::shared_ptr<const void>> owners;
  int64_t patches = 0;
  for (const Piece& p : batch) {
    where.append(config_, p.frames, p.input->grid_h, p.input->grid_w);
    const int64_t frame_bytes = p.input->grid_h * p.input->grid_w * config_.patch_dim();
    pixels.push_back({.from = p.input->patches.data() + p.first_frame * frame_bytes,
                      .bytes = p.frames * frame_bytes,
                      .pinned = p.input->owner != nullptr});
    owners.push_back(p.input->owner);
    patches += p.patches();
  }
  std::vector<int32_t> axes = where.rows;
  axes.insert(axes.end(), where.columns.begin(), where.columns.end());
  const std::vector<int32_t> tiles = ops::attention_tiles(where.segments, false);
  RunArgs args;
  size_of(args.sizes, Sym::kPatches) = patches;
  size_of(args.sizes, Sym::kFrames) = std::ssize(where.segments);
  size_of(args.sizes, Sym::kTiles) = std::ssize(tiles) / 2;
  BatchInputs in(inputs_, args.sizes);
  in.set(vision_values::kPosIndices, where.pos_indices);
  in.set(vision_values::kPosWeights, where.pos_weights);
  in.set(vision_values::kPositions, axes);
  in.set(vision_values::kRopeAxis, pairs_.axis);
  in.set(vision_values::kRopeInvFreq, pairs_.inv_freq);
  in.set(kSegments, where.segments);
  in.set(kTiles, tiles);
  in.set_pieces(vision_values::kPatches, std::move(pixels));
  OpenDevice& device = runner_.device();
  InputSet& set = sets_[sets_.take()];
  VLR_RETURN_IF_ERROR(in.place(device, set, args));
  set.owners = std::move(owners);
  const int64_t level_bytes = feature_row_bytes() / num_levels();
  for (size_t level = 0; level < features.levels.size(); ++level) {
    args.bound[feature_name(level)] =
        Tensor(features.levels[level].data() + first_row * level_bytes, options_.dtype,
               {patches / config_.patches_per_token(), config_.out_hidden_size}, device.kind());
  }
  args.segments.emplace_back(where.segments, ops::AttentionTable{args.bound[std::string(kSegments)],
                                                                 args.bound[std::string(kTiles)]});
  VLR_RETURN_IF_ERROR(runner_.run(*executor_, args, "vision"));
  VLR_ASSIGN_OR_RETURN(set.done, device.mark());
  return {};
}

/// As many frames as there can be, each of one merged token.
Sizes VisionPass::largest_sizes(int64_t patches) const {
  Sizes sizes{};
  const int64_t frames = patches / config_.patches_per_token();
  size_of(sizes, Sym::kPatches) = patches;
  size_of(sizes, Sym::kFrames) = frames;
  size_of(sizes, Sym::kTiles) = frames + patches / ops::attention_tile(false);
  return sizes;
}

Result<RunPlan> VisionPass::plan(int64_t patches) const {
  RunArgs args;
  args.row_chunk = runner_.row_chunk;
  args.sizes = largest_sizes(patches);
  // One frame of all patches is what attention wants most scratch for.
  const auto all = static_cast<int32_t>(patches);
  const std::vector<ops::AttentionSegment> segments = {
      {.q_begin = 0, .q_len = all, .k_begin = 0, .k_len = all, .prefix_begin = 0, .prefix_len = 0}};
  args.segments = {segments};
  return executor_->plan(args, runner_.device().context());
}

int64_t VisionPass::input_bytes(int64_t patches) const {
  return kInFlight * vlr::input_bytes(inputs_, largest_sizes(patches));
}

int64_t VisionPass::feature_row_bytes() const {
  return num_levels() * config_.out_hidden_size * dtype_bytes(options_.dtype);
}

}  // namespace vlr
