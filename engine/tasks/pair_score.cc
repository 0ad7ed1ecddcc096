#include "engine/tasks/pair_score.h"

#include <fmt/format.h>

#include <cmath>

namespace vlr {
namespace {

/// How far log-odds may be from those before, on average over the probe.
constexpr double kProbeDistance = 2.0;
/// Without those: how far answers have to be ahead, on average. Scrambled weights give every
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

Status check_probe(std::span<const float> log_odds, std::span<const float> before,
                   const QuantModes& modes) {
  const std::string_view mode_name = quant_name(modes);
  for (const float v : log_odds) {
    if (!std::isfinite(v))
      return {Code::kDataLoss, fmt::format("relevance probe: a log-odds is {}", v)};
  }
  if (!before.empty()) {
    if (before.size() != log_odds.size()) {
      return {Code::kDataLoss, fmt::format("relevance probe: {} expected log-odds for {} documents",
                                           before.size(), log_odds.size())};
    }
    double sum = 0;
    for (size_t i = 0; i < before.size(); ++i)
      sum += std::fabs(static_cast<double>(log_odds[i]) - static_cast<double>(before[i]));
    const double mean = sum / static_cast<double>(before.size());
    if (mean <= kProbeDistance) return {};
    return {Code::kDataLoss,
            fmt::format("relevance probe: log-odds are {:.2f} from those before the model was "
                        "quantised ({}), on average over {} documents; at most {} are expected",
                        mean, mode_name, before.size(), kProbeDistance)};
  }
  double ahead = 0;
  for (size_t i = 0; i + 1 < log_odds.size(); i += 2)
    ahead += static_cast<double>(log_odds[i]) - static_cast<double>(log_odds[i + 1]);
  ahead *= 2 / static_cast<double>(log_odds.size());
  if (ahead >= kProbeAhead) return {};
  return {
      Code::kDataLoss,
      fmt::format("relevance probe: documents that answer are {:.2f} ahead of documents that do "
                  "not ({}), on average; a model that ranks has them {} ahead or more",
                  ahead, mode_name, kProbeAhead)};
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
