#include "tools/open_model.h"

#include <algorithm>
#include <filesystem>

#include "engine/placement/prepared_model.h"
#include "engine/tasks/pair_score.h"
#include "kernels/core/clock.h"
#include "model/synthetic.h"
#include "tools/common.h"

namespace vlr::tools {
namespace {

namespace fs = std::filesystem;

constexpr double kWarmSeconds = 0.5;  // at most, beyond the runs that are needed
// A size class is launched op by op, then recorded, in each of the runner's slots.
constexpr int kWarmRuns = 2 * kInFlight + 1;

/// The published sizes by name, so that results stand beside other programs'.
std::string size_of_model(const ModelConfig& config, const std::string& folder) {
  for (const char* preset : {"2b", "8b"}) {
    const auto known = synthetic_config(preset);
    if (known && known->text_config == config.text_config) return preset;
  }
  return fs::weakly_canonical(folder).filename().string();
}

/// The two rows of the head do not change what it costs.
HeadTokens head_tokens(const ModelConfig& config) {
  const HeadTokens usual;
  if (usual.yes < config.text_config.vocab_size) return usual;
  return {.yes = 0, .no = 1};
}

}  // namespace

Result<std::unique_ptr<OpenModel>> OpenModel::open(const std::string& folder,
                                                   const std::string& preset,
                                                   const Options& options,
                                                   const ReadOptions& read) {
  const double start = seconds_now();
  const bool synthetic = !preset.empty();
  auto out = std::make_unique<OpenModel>(options);
  OpenModel& m = *out;
  ModelFolder files;
  if (!synthetic) {
    VLR_ASSIGN_OR_RETURN(files, ModelFolder::open(folder, ModelFolder::Weights::kNeeded));
  }
  auto config = synthetic ? synthetic_config(preset) : files.config;
  if (!config) return config.error();
  m.name = synthetic ? preset : size_of_model(*config, folder);
  const HeadTokens head = head_tokens(*config);
  const auto fill = [](const WeightSpec& weight, const Tensor& to, Context& ctx) {
    return fill_synthetic_weight(weight, to, ctx.stream);
  };
  auto source = synthetic ? ModelSource::synthetic(*std::move(config), head, fill)
                          : ModelSource::of_folder(std::move(files), head);
  if (!source) return source.error();
  source->read = read;
  VLR_ASSIGN_OR_RETURN(m.replica, Replica::open(pair_score(), *std::move(source), m.options,
                                                m.threads, m.choices, m.cancelled));
  m.measure_seconds = m.model().measure_seconds;
  m.load_seconds = seconds_now() - start - m.measure_seconds;
  return out;
}

Result<double> ClockedRuns::run() {
  const double start = seconds_now();
  VLR_ASSIGN_OR_RETURN(std::vector<float> log_odds, work_.run());
  const double seconds = seconds_now() - start;
  if (first_.empty()) first_ = log_odds;
  same_bits_ = same_bits_ && std::equal(first_.begin(), first_.end(), log_odds.begin());
  return seconds;
}

Result<double> warm_up(ClockedRuns& runs, bool on_gpu) {
  double last = 0, warm = 0;
  for (int i = 0; i < (on_gpu ? kWarmRuns : 1) && (i < 2 || warm < kWarmSeconds); ++i) {
    VLR_ASSIGN_OR_RETURN(last, runs.run());
    warm += last;
  }
  return last;
}

}  // namespace vlr::tools
