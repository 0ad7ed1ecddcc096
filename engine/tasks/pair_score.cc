#include "engine/tasks/pair_score.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace vlr {
namespace {

/// How far log-odds may be from those before the model was quantised, on average over the probe:
/// for folders that keep these, and none of their codes decoded.
constexpr double kProbeDistance = 2.0;
/// Log-odds below this size say little: distances are shares of this much at least.
constexpr double kProbeSize = 1.0;
/// Without any of them: how far answers have to be ahead, on average. Scrambled weights give every
/// document about the same log-odds, with either one ahead.
constexpr double kProbeAhead = 0.5;

float sigmoid(float log_odds) {
  return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(log_odds))));
}

/// Queries with a document that answers and one that does not, in this order.
std::vector<Request> probe() {
  struct Probe {
    const char *query, *answer, *other;
  };
  constexpr Probe kProbes[] = {
      {"What is the capital of China?", "The capital of China is Beijing.",
       "Gravity is a force that attracts two bodies towards each other."},
      {"Explain gravity", "Gravity is a force that attracts two bodies towards each other.",
       "The capital of China is Beijing."},
      {"a celestial body", "A star is a celestial body that shines at night.",
       "A chair is a piece of furniture to sit on."},
      {"furniture to sit on", "A chair is a piece of furniture to sit on.",
       "A star is a celestial body that shines at night."}};
  std::vector<Request> out;
  for (const Probe& p : kProbes) {
    Request& r = out.emplace_back();
    r.query.texts = {p.query};
    r.documents = {{.texts = {p.answer}}, {.texts = {p.other}}};
  }
  return out;
}

/// Against the codes decoded and multiplied densely: the difference is rounding, or damage.
Status check_decoded(std::span<const float> log_odds, std::span<const float> decoded,
                     const QuantModes& modes) {
  double limit = 0, squares = 0, error = 0;
  for (const auto& [name, mode] : modes) limit = std::max(limit, mode_info(mode).probe_distance);
  for (size_t i = 0; i < decoded.size(); ++i) {
    const double want = static_cast<double>(decoded[i]),
                 d = static_cast<double>(log_odds[i]) - want;
    squares += want * want;
    error += d * d;
  }
  const auto count = static_cast<double>(decoded.size());
  const double size = std::max(kProbeSize, std::sqrt(squares / count)),
               distance = std::sqrt(error / count) / size;
  if (distance <= limit) return {};
  return {Code::kDataLoss,
          fmt::format("relevance probe: log-odds are {:.2f} from those of the weights that were "
                      "written, decoded ({}), as a share of their size over {} documents; rounding "
                      "explains {}",
                      distance, quant_name(modes), decoded.size(), limit)};
}

Status check_before(std::span<const float> log_odds, std::span<const float> before,
                    const QuantModes& modes) {
  double sum = 0;
  for (size_t i = 0; i < before.size(); ++i)
    sum += std::fabs(static_cast<double>(log_odds[i]) - static_cast<double>(before[i]));
  const double mean = sum / static_cast<double>(before.size());
  if (mean <= kProbeDistance) return {};
  return {Code::kDataLoss,
          fmt::format("relevance probe: log-odds are {:.2f} from those before the model was "
                      "quantised ({}), on average over {} documents; at most {} are expected",
                      mean, quant_name(modes), before.size(), kProbeDistance)};
}

Status check_ahead(std::span<const float> log_odds, const QuantModes& modes) {
  double ahead = 0;
  for (size_t i = 0; i + 1 < log_odds.size(); i += 2)
    ahead += static_cast<double>(log_odds[i]) - static_cast<double>(log_odds[i + 1]);
  ahead *= 2 / static_cast<double>(log_odds.size());
  if (ahead >= kProbeAhead) return {};
  return {
      Code::kDataLoss,
      fmt::format("relevance probe: documents that answer are {:.2f} ahead of documents that do "
                  "not ({}), on average; a model that ranks has them {} ahead or more",
                  ahead, quant_name(modes), kProbeAhead)};
}

Status check_probe(std::span<const float> log_odds, const ProbeRecord& kept,
                   const QuantModes& modes) {
  for (const float v : log_odds) {
    if (!std::isfinite(v))
      return {Code::kDataLoss, fmt::format("relevance probe: a log-odds is {}", v)};
  }
  for (const std::vector<float>* list : {&kept.decoded, &kept.before}) {
    if (list->empty()) continue;
    if (list->size() != log_odds.size()) {
      return {Code::kDataLoss, fmt::format("relevance probe: {} expected log-odds for {} documents",
                                           list->size(), log_odds.size())};
    }
  }
  if (!kept.decoded.empty()) return check_decoded(log_odds, kept.decoded, modes);
  if (!kept.before.empty()) return check_before(log_odds, kept.before, modes);
  return check_ahead(log_odds, modes);
}

}  // namespace

const Task& pair_score() {
  static constexpr Task kTask{.name = "pair score",
                              .prompt = kPairScorePrompt,
                              .positive_token = "yes",
                              .negative_token = "no",
                              .score = sigmoid,
                              .probe = probe,
                              .check_probe = check_probe};
  return kTask;
}

}  // namespace vlr
