#include "engine/passes/text_pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/runtime/arena.h"
#include "kernels/attention/attention.h"
#include "kernels/core/integer.h"
#include "model/vision_encoder.h"

namespace vlr {
namespace {

// Of attention, beside the graph's values; the host's layers have visual rows of their own.
constexpr std::string_view kSegmentsAll = "segments.all", kTilesAll = "tiles.all",
                           kSegmentsFinal = "segments.final", kTilesFinal = "tiles.final",
                           kHostVisualRow = "host.visual_row";

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

/// The next multiple of a step that grows with it.
int64_t rounded(int64_t count) { return round_up(count, count <= 16 ? 4 : count <= 128 ? 16 : 32); }

}  // namespace

/// A batch as the graph wants it.
struct TextPass::Packed {
  Sizes sizes{};
  std::vector<int32_t> ids, visual_rows, positions, last_rows, last_positions;
  std::vector<ops::AttentionSegment> all, final;
  std::vector<int32_t> all_tiles, final_tiles;
  std::vector<int32_t> host_visual_rows;
  int64_t first_visual = 0, host_visual = 0;  // rows of features that the host's layers read
};

TextPass::TextPass(const ModelConfig& config, TextGraph which, const std::set<int64_t>& host_layers,
                   PrefixMemory& prefixes, PassRunner& runner, const GraphOptions& options)
    : config_(config),
      which_(which),
      host_layers_(host_layers),
      prefixes_(prefixes),
      runner_(runner),
      options_(options),
      pairs_(text_rotary_pairs(config.text_config)),
      sets_(runner.device()) {
  using namespace text_values;
  const Dim t = Sym::kTokens, b = Sym::kSequences;
  inputs_ = {{kIds, DType::kI32, {t}},
             {kVisualRow, DType::kI32, {t}},
             {kPositions, DType::kI32, {3, t}},
             {kRopeAxis, DType::kI32, {std::ssize(pairs_.axis)}},
             {kRopeInvFreq, DType::kF32, {std::ssize(pairs_.inv_freq)}},
             {kSegmentsAll, DType::kI32, {b, kSegmentFields}},
             {kTilesAll, DType::kI32, {Sym::kTiles, 2}},
             {kSegmentsFinal, DType::kI32, {b, kSegmentFields}},
             {kTilesFinal, DType::kI32, {b, 2}}};
  if (scoring()) {
    inputs_.push_back({kLastRows, DType::kI32, {b}});
    inputs_.push_back({kLastPositions, DType::kI32, {3, b}});
  }
  if (!host_layers_.empty()) inputs_.push_back({kHostVisualRow, DType::kI32, {t}});
}

Result<std::unique_ptr<TextPass>> TextPass::create(const ModelConfig& config, TextGraph which,
                                                   const std::set<int64_t>& host_layers,
                                                   const WeightLookup& weights,
                                                   PrefixMemory& prefixes, PassRunner& runner,
                                                   const GraphOptions& options,
                                                   WeightSupply* stream) {
  std::unique_ptr<TextPass> pass(
      new TextPass(config, which, host_layers, prefixes, runner, options));
  VLR_ASSIGN_OR_RETURN(pass->sections_, LayerSections::create(config, which, host_layers, weights,
                                                              runner, options, stream));
  return pass;
}

/// A prefix pass writes exactly its rows. Batches with pictures are never small.
TextSizes TextPass::size_class(const TextSizes& sizes) const {
  TextSizes out = sizes;
  if (!scoring() || !runner_.device().is_gpu() || sizes.tokens > recordings.max_tokens ||
      !host_layers_.empty())
    return out;
  out.tokens = rounded(sizes.tokens);
  out.sequences = rounded(sizes.sequences);
  return out;
}

TextPass::Packed TextPass::pack(std::span<const TextInput> batch, const TextSizes& padded,
                                bool pad_tiles) const {
  const int64_t tokens = padded.tokens, sequences = padded.sequences;
  Packed out;
  out.positions.resize(static_cast<size_t>(3 * tokens));
  out.last_positions.resize(static_cast<size_t>(3 * sequences));
  for (size_t b = 0; b < batch.size(); ++b) {
    const TextInput& s = batch[b];
    const auto begin = static_cast<int32_t>(out.ids.size()),
               length = static_cast<int32_t>(s.ids.size());
    out.ids.insert(out.ids.end(), s.ids.begin(), s.ids.end());
    out.visual_rows.insert(out.visual_rows.end(), s.visual_rows.begin(), s.visual_rows.end());
    for (int64_t axis = 0; axis < 3; ++axis) {
      const int32_t* from = s.positions.data() + axis * s.positions_stride + s.offset;
      std::copy_n(from, length, out.positions.data() + axis * tokens + begin);
      out.last_positions[static_cast<size_t>(axis * sequences) + b] = from[length - 1];
    }
    out.last_rows.push_back(begin + length - 1);
    const ops::AttentionSegment own{.q_begin = begin,
                                    .q_len = length,
                                    .k_begin = begin,
                                    .k_len = length,
                                    .prefix_begin = static_cast<int32_t>(s.prefix_row),
                                    .prefix_len = static_cast<int32_t>(s.prefix_len)};
    out.all.push_back(own);
    ops::AttentionSegment& last = out.final.emplace_back(own);
    last.q_begin = static_cast<int32_t>(b);
    last.q_len = 1;
  }
  // Padding: tokens of no sequence, and sequences without queries.
  out.ids.resize(static_cast<size_t>(tokens), 0);
  out.visual_rows.resize(static_cast<size_t>(tokens), -1);
  out.last_rows.resize(static_cast<size_t>(sequences), 0);
  out.all.resize(static_cast<size_t>(sequences));
  out.final.resize(static_cast<size_t>(sequences));
  out.all_tiles = ops::attention_tiles(out.all, true);
  out.final_tiles = ops::attention_tiles(out.final, true);
  out.final_tiles.resize(static_cast<size_t>(2 * sequences), -1);
  out.sizes = largest_sizes(padded);
  if (pad_tiles) {
    out.all_tiles.resize(static_cast<size_t>(2 * size_of(out.sizes, Sym::kTiles)), -1);
  } else {
    size_of(out.sizes, Sym::kTiles) = std::ssize(out.all_tiles) / 2;
  }
  return out;
}

/// Few of a wave's features are a batch's: those that the host's layers get are counted from the
/// first one on.
void TextPass::count_host_features(Packed& packed, int64_t feature_rows) const {
  if (host_layers_.empty()) return;
  int64_t end = 0;
  packed.first_visual = feature_rows;
  for (const int32_t row : packed.visual_rows) {
    if (row < 0) continue;
    packed.first_visual = std::min<int64_t>(packed.first_visual, row);
    end = std::max<int64_t>(end, row + 1);
  }
  for (const int32_t row : packed.visual_rows) {
    packed.host_visual_rows.push_back(row < 0 ? row
                                              : row - static_cast<int32_t>(packed.first_visual));
  }
  packed.host_visual = std::max<int64_t>(0, end - packed.first_visual);
}

Status TextPass::place(const Packed& packed, InputSet& set, SectionArgs& args) const {
  using namespace text_values;
  BatchInputs in(inputs_, packed.sizes);
  in.set(kIds, packed.ids);
  in.set(kVisualRow, packed.visual_rows);
  in.set(kPositions, packed.positions);
  in.set(kRopeAxis, pairs_.axis);
  in.set(kRopeInvFreq, pairs_.inv_freq);
  in.set(kSegmentsAll, packed.all);
  in.set(kTilesAll, packed.all_tiles);
  in.set(kSegmentsFinal, packed.final);
  in.set(kTilesFinal, packed.final_tiles);
  in.set(kLastRows, packed.last_rows);
  in.set(kLastPositions, packed.last_positions);
  in.set(kHostVisualRow, packed.host_visual_rows);
  const bool with_host = !host_layers_.empty();
  args.device.sizes = args.host.sizes = packed.sizes;
  VLR_RETURN_IF_ERROR(
      in.place(runner_.device(), set, args.device, with_host ? &args.host : nullptr));
  if (with_host) {
    size_of(args.host.sizes, Sym::kVisualTokens) = packed.host_visual;
    args.first_visual = packed.first_visual;
    args.host.bound[std::string(kVisualRow)] = args.host.bound[std::string(kHostVisualRow)];
  }
  for (RunArgs* to : {&args.device, &args.host}) {
    const auto table = [&](std::string_view segments, std::string_view tiles) {
      return ops::AttentionTable{to->bound[std::string(segments)], to->bound[std::string(tiles)]};
    };
    to->segments.emplace_back(packed.all, table(kSegmentsAll, kTilesAll));
    to->segments.emplace_back(packed.final, table(kSegmentsFinal, kTilesFinal));
  }
  return {};
}

/// What the device has already: features, keys and values of prefixes, and where log-odds go.
void TextPass::bind_memory(const VisionFeatures& features, int64_t first_prefix_row, InputSet& set,
                           SectionArgs& args) const {
  const Device device = runner_.device().kind();
  const TextConfig& c = config_.text_config;
  if (config_.vision_config) {
    const size_t levels = 1 + config_.vision_config->deepstack_visual_indexes.size();
    for (size_t level = 0; level < levels; ++level) {
      args.device.bound[feature_name(level)] =
          Tensor(features.rows > 0 ? features.levels[level].data() : nullptr, options_.dtype,
                 {features.rows, c.hidden_size}, device);
    }
  }
  const int64_t count = size_of(args.device.sizes, Sym::kPrefixTokens);
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    RunArgs& of = host_layers_.contains(layer) ? args.host : args.device;
    of.bound[text_values::prefix_kv(layer)] = prefixes_.rows(layer, first_prefix_row, count);
  }
  if (scoring()) {
    args.device.bound[std::string(text_values::kLogOdds)] =
        Tensor(set.out.data(), DType::kF32, {size_of(args.device.sizes, Sym::kSequences)}, device);
  }
}

Result<Ticket> TextPass::start(std::span<const TextInput> batch, const VisionFeatures& features,
                               int64_t first_prefix_row) {
  TextSizes sizes{.tokens = 0, .sequences = std::ssize(batch)};
  for (const TextInput& s : batch) sizes.tokens += std::ssize(s.ids);
  const bool may_record = scoring() && features.rows == 0 && !runner_.observed() &&
                          size_class({.tokens = sizes.tokens, .sequences = 1}).sequences > 1;
  if (may_record) sizes = size_class(sizes);
  sizes.visual_tokens = features.rows;
  sizes.prefix_tokens = scoring() ? prefixes_.capacity() : sizes.tokens;
  Packed packed = pack(batch, sizes, may_record);
  count_host_features(packed, features.rows);

  const Ticket ticket{.set = sets_.take(), .sequences = batch.size()};
  InputSet& set = sets_[ticket.set];
  OpenDevice& device = runner_.device();
  SectionArgs args;
  VLR_RETURN_IF_ERROR(place(packed, set, args));
  const int64_t out_bytes = sizes.sequences * static_cast<int64_t>(sizeof(float));
  if (scoring()) VLR_RETURN_IF_ERROR(set.out.reserve(result_bytes(sizes.sequences)));
  bind_memory(features, first_prefix_row, set, args);
  if (may_record) {
    VLR_RETURN_IF_ERROR(replay_or_run(set, args.device));
  } else {
    VLR_RETURN_IF_ERROR(sections_->run(args, scoring() ? "text" : "prefix"));
  }
  if (scoring()) {
    VLR_RETURN_IF_ERROR(set.out_staging.reserve(result_bytes(sizes.sequences)));
    VLR_RETURN_IF_ERROR(device.copy(set.out_staging.data(), set.out.data(), out_bytes));
  }
  VLR_ASSIGN_OR_RETURN(set.done, device.mark());
  return ticket;
}

Result<std::vector<float>> TextPass::finish(const Ticket& ticket) {
  InputSet& set = sets_[ticket.set];
  OpenDevice& device = runner_.device();
  VLR_RETURN_IF_ERROR(device.wait(set.done));
  std::vector<float> values(ticket.sequences);
  device.copy_on_host(values.data(), set.out_staging.data(),
                      std::ssize(values) * static_cast<int64_t>(sizeof(float)));
  return values;
}

/// Runs a batch of a size class op by op the first time, records it the second time, and from then
/// on replays the recording. Everything that a recording knows by address is in its key.
Status TextPass::replay_or_run(const InputSet& set, RunArgs& args) {
  OpenDevice& device = runner_.device();
  const Executor& executor = sections_->only();
  constexpr std::string_view kKind = "text";
  if (!device.can_record()) return runner_.run(executor, args, kKind);
  const std::string key = fmt::format(
      "{} {} {} {} {} {} {}", size_of(args.sizes, Sym::kTokens),
      size_of(args.sizes, Sym::kSequences), fmt::ptr(set.memory.data()), fmt::ptr(set.out.data()),
      fmt::ptr(prefixes_.data()), prefixes_.capacity(), fmt::ptr(runner_.arena.data()));
  auto [it, first_time] = recordings_.try_emplace(key);
  if (first_time) {
    if (recordings_.size() > recordings.max_recordings) {
      recordings_.clear();
      recordings_.try_emplace(key);
    }
    return runner_.run(executor, args, kKind);
  }
  if (!it->second) {
    Context& ctx = device.context();
    args.row_chunk = runner_.row_chunk;
    VLR_ASSIGN_OR_RETURN(const RunPlan plan, executor.plan(args, ctx));
    if (plan.total() > runner_.arena.size()) return runner_.run(executor, args, kKind);
    auto recording =
        device.record([&] { return executor.run(args, plan, runner_.arena.bytes(), ctx); });
    if (!recording) return recording.error().with_context(kKind);
    it->second = *std::move(recording);
  }
  ++num_replays_;
  return device.launch(*it->second);
}

/// Every sequence has at most one tile that is not full.
Sizes TextPass::largest_sizes(const TextSizes& s) const {
  Sizes sizes{};
  size_of(sizes, Sym::kTokens) = s.tokens;
  size_of(sizes, Sym::kSequences) = s.sequences;
  size_of(sizes, Sym::kPrefixTokens) = s.prefix_tokens;
  size_of(sizes, Sym::kVisualTokens) = s.visual_tokens;
  size_of(sizes, Sym::kTiles) = s.sequences + s.tokens / ops::attention_tile(true);
  return sizes;
}

Result<PassPlan> TextPass::plan(const TextSizes& sizes) const {
  RunArgs args;
  args.row_chunk = runner_.row_chunk;
  args.sizes = largest_sizes(sizes);
  const std::vector<ops::AttentionSegment> all = equal_segments(sizes, false),
                                           final = equal_segments(sizes, true);
  args.segments = {all, final};
  return sections_->plan(args, sizes.visual_tokens);
}

int64_t TextPass::input_bytes(const TextSizes& sizes) const {
  return kInFlight * (vlr::input_bytes(inputs_, largest_sizes(sizes)) +
                      (scoring() ? result_bytes(sizes.sequences) : 0));
}

}  // namespace vlr
