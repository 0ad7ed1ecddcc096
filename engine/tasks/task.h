/// What is asked of a model: the prompt, the head that answers, what its answer means, and how a
/// model that is broken shows. Everything else in the engine is the same for every task. A new one
/// is a file beside pair_score.cc.
#ifndef VLR_ENGINE_TASKS_TASK_H_
#define VLR_ENGINE_TASKS_TASK_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/quantization.h"
#include "tokenizer/chat_template.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// What memory plans reserve for a prompt's tail, which Options::max_length does not count. No
/// task's PromptTemplate::tail_tokens is more; limits of batches depend on it, so it is the same for
/// all.
inline constexpr int64_t kTailBound = 64;

struct Task {
  std::string_view name;
  PromptTemplate prompt;

  /// The head is one row, taken times the state of the last token: the difference of two tokens'
  /// rows of the output embedding, or the score row of a sequence classification checkpoint, which
  /// is that difference. Its product is the log-odds of the first against the second.
  std::string_view positive_token, negative_token;

  /// From log-odds to what a user gets.
  float (*score)(float log_odds);

  /// Requests whose answers are known, which show whether a quantised model still ranks.
  std::vector<Request> (*probe)();
  /// `log_odds` of all documents of probe(), and what the checkpoint keeps of them. kDataLoss with
  /// the figures where they are further apart than the modes explain.
  Status (*check_probe)(std::span<const float> log_odds, const ProbeRecord& kept,
                        const QuantModes& modes);
};

}  // namespace vlr

#endif  // VLR_ENGINE_TASKS_TASK_H_
