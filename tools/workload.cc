#include "tools/workload.h"
#include "multimodal/patchify.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <utility>

#include "engine/scheduling/packer.h"
#include "model/mrope_positions.h"
#include "model/synthetic.h"

namespace vlr::tools {
namespace {

constexpr int64_t kText100[] = {
#include "text100_lengths.inc"  // bench/text100_lengths.json
};
constexpr int64_t kText100Shared = 60;

// An image of 1280 x 960 pixels between two halves of its document's text.
constexpr int64_t kGridRows = 60, kGridColumns = 80, kImagePatches = kGridRows * kGridColumns,
                  kImageTokens = kImagePatches / kPatchesPerToken, kTextBefore = 40,
                  kTextAfter = 40, kImageDocument = kTextBefore + kImageTokens + kTextAfter;

/// Tokens that stand for no picture.
class RandomTokens {
 public:
  explicit RandomTokens(const ModelConfig& c)
      : count_(static_cast<uint64_t>(
            std::min({c.text_config.vocab_size, int64_t{c.image_token_id},
                      int64_t{c.video_token_id}, int64_t{c.vision_start_token_id}}))) {}
  void append(std::vector<int32_t>& to, int64_t count) {
    for (; count > 0; --count) to.push_back(static_cast<int32_t>(splitmix64(next_++) % count_));
  }

 private:
  uint64_t count_, next_ = 1;
};

}  // namespace

int64_t WorkloadSpec::tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}
int64_t WorkloadSpec::patches() const { return images ? pairs() * kImagePatches : 0; }

std::array<int64_t, 3> WorkloadSpec::grid() const { return {1, kGridRows, kGridColumns}; }

std::span<const std::string> workload_names() {
  static const std::vector<std::string> kNames = {"text100", "32x512",  "1x128",  "1x8192",
                                                  "1x32768", "images1", "images8"};
  return kNames;
}

std::vector<WorkloadSpec> workloads_of(const std::string& name, bool share_prefix) {
  const auto images = [&](size_t count) {
    return WorkloadSpec{
        .name = name, .lengths = std::vector(count, kImageDocument), .images = true, .shared = 0};
  };
  if (name == "images1") return {images(1)};
  if (name == "images8") return {images(8)};
  if (name == "text100") {
    WorkloadSpec spec{.name = name,
                      .lengths = {std::begin(kText100), std::end(kText100)},
                      .images = false,
                      .shared = kText100Shared};
    WorkloadSpec whole = spec;
    whole.name += "_whole";
    whole.shared = 0;
    if (!share_prefix) return {whole};
    return {spec, whole};
  }
  const size_t times = name.find('x');
  return {{.name = name,
           .lengths = std::vector(std::stoul(name), int64_t{std::stol(name.substr(times + 1))}),
           .images = false,
           .shared = 0}};
}

double model_flops(const WorkloadSpec& spec, const ModelConfig& config) {
  const TextConfig& t = config.text_config;
  const auto number = [](int64_t n) { return static_cast<double>(n); };
  const double q = number(t.num_attention_heads * t.head_dim),
               kv = number(t.num_key_value_heads * t.head_dim);
  const double weights = number(t.hidden_size) * (2 * q + 2 * kv + 3 * number(t.intermediate_size));
  double sum = 0;
  for (const int64_t length : spec.lengths) {
    const double n = number(length);
    sum += number(t.num_hidden_layers) * (2 * weights * n + 2 * q * n * (n + 1));
  }
  if (!spec.images || !config.vision_config) return sum;
  const VisionConfig& v = *config.vision_config;
  const double h = number(v.hidden_size), wide = number(v.merged_size()),
               patches = number(kImagePatches);
  const double block = h * (4 * h + 2 * number(v.intermediate_size));
  const double mergers = number(1 + std::ssize(v.deepstack_visual_indexes)) * wide *
                         (wide + number(v.out_hidden_size));
  const double image = number(v.depth) * (2 * block * patches + 4 * h * patches * patches) +
                       2 * mergers * number(kImageTokens) + 2 * number(v.patch_dim()) * h * patches;
  return sum + number(spec.pairs()) * image;
}

Result<Work> Work::create(WorkloadSpec spec, const ModelConfig& config, ModelRunner& runner,
                          const BatchLimits& limits) {
  if (spec.images && !config.vision_config)
    return {Code::kInvalidArgument, "this checkpoint has no vision tower"};
  Work work(std::move(spec), runner, limits);
  RandomTokens random(config);
  std::vector<int32_t> shared;
  random.append(shared, work.spec_.shared > 0 ? work.spec_.shared : kText100Shared);
  for (const int64_t length : work.spec_.lengths) {
    Sequence& s = work.sequences_.emplace_back();
    std::vector<VisualRun> runs;
    if (work.spec_.images) {
      random.append(s.ids, kTextBefore - 1);
      s.ids.push_back(config.vision_start_token_id);
      s.ids.insert(s.ids.end(), kImageTokens, config.image_token_id);
      s.ids.push_back(config.vision_end_token_id);
      random.append(s.ids, kTextAfter - 1);
      runs.push_back({.rows = kGridRows / kMergeSize, .columns = kGridColumns / kMergeSize});
    } else {
      s.ids = shared;
      s.ids.resize(static_cast<size_t>(std::min(length, std::ssize(shared))));
      random.append(s.ids, length - std::ssize(s.ids));
    }
    VLR_ASSIGN_OR_RETURN(SequencePositions where, mrope_positions(s.ids, config, runs, {}));
    s.positions = std::move(where.positions);
    s.visual_rows = std::move(where.visual_index);
    const auto first_row = static_cast<int32_t>((std::ssize(work.sequences_) - 1) * kImageTokens);
    for (int32_t& row : s.visual_rows) {
      if (row >= 0) row += first_row;
    }
  }
  if (work.spec_.images) {
    const int64_t image_bytes = kImagePatches * config.vision_config->patch_dim();
    work.pixels_.resize(static_cast<size_t>(work.spec_.pairs() * image_bytes));
    for (size_t i = 0; i < work.pixels_.size(); ++i)
      work.pixels_[i] = static_cast<uint8_t>(splitmix64(i) >> 56);
    for (int64_t i = 0; i < work.spec_.pairs(); ++i) {
      work.images_.push_back({.grid_t = 1,
                              .grid_h = kGridRows,
                              .grid_w = kGridColumns,
                              .patches = std::span(work.pixels_)
                                             .subspan(static_cast<size_t>(i * image_bytes),
                                                      static_cast<size_t>(image_bytes))});
    }
  }
  return work;
}

Status Work::fits() const {
  const int64_t longest =
      *std::max_element(spec_.lengths.begin(), spec_.lengths.end()) - spec_.shared;
  if (longest > limits_.max_sequence) {
    return {Code::kOutOfMemory, fmt::format("{} tokens in a row, the memory cap allows {}", longest,
                                            limits_.max_sequence)};
  }
  if (const int64_t rows = spec_.patches() / kPatchesPerToken; rows > limits_.visual_rows) {
    return {Code::kOutOfMemory, fmt::format("{} visual tokens at once, the memory cap allows {}",
                                            rows, limits_.visual_rows)};
  }
  return {};
}

TextInput Work::input(const Sequence& s, int64_t first, int64_t count) {
  const auto begin = static_cast<size_t>(first), size = static_cast<size_t>(count);
  return {.ids = std::span(s.ids).subspan(begin, size),
          .positions = s.positions,
          .positions_stride = std::ssize(s.ids),
          .offset = first,
          .visual_rows = std::span(s.visual_rows).subspan(begin, size),
          .prefix_row = 0,
          .prefix_len = first};
}

Result<std::vector<float>> Work::run() {
  VLR_RETURN_IF_ERROR(runner_->run_vision(images_, limits_.patches, features_).error());
  if (spec_.shared > 0) {
    VLR_RETURN_IF_ERROR(runner_->reserve_prefixes(spec_.shared));
    const TextInput prefix = input(sequences_.front(), 0, spec_.shared);
    VLR_RETURN_IF_ERROR(runner_->prefix().start({&prefix, 1}, features_, 0).error());
  }
  std::vector<int64_t> own;
  for (const int64_t length : spec_.lengths) own.push_back(length - spec_.shared);

  struct Batch {
    Ticket ticket;
    std::vector<size_t> members;
  };
  std::vector<float> log_odds(sequences_.size());
  std::deque<Batch> in_flight;
  const auto finish_oldest = [&]() -> Status {
    const Batch batch = std::move(in_flight.front());
    in_flight.pop_front();
    VLR_ASSIGN_OR_RETURN(const std::vector<float> values, runner_->score().finish(batch.ticket));
    for (size_t i = 0; i < values.size(); ++i) log_odds[batch.members[i]] = values[i];
    return {};
  };
  for (std::vector<size_t>& members : pack_batches(own, limits_.tokens, limits_.sequences)) {
    if (in_flight.size() == kInFlight) VLR_RETURN_IF_ERROR(finish_oldest());
    std::vector<TextInput> inputs;
    for (const size_t i : members) inputs.push_back(input(sequences_[i], spec_.shared, own[i]));
    VLR_ASSIGN_OR_RETURN(const Ticket ticket, runner_->score().start(inputs, features_));
    in_flight.push_back({.ticket = ticket, .members = std::move(members)});
  }
  while (!in_flight.empty()) VLR_RETURN_IF_ERROR(finish_oldest());
  return log_odds;
}

}  // namespace vlr::tools
