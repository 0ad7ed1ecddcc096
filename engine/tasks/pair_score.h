/// Whether a document meets the requirements of a query, as Qwen3-VL-Reranker is asked: the
/// probability of "yes" against "no".
#ifndef VLR_ENGINE_TASKS_PAIR_SCORE_H_
#define VLR_ENGINE_TASKS_PAIR_SCORE_H_

#include "engine/tasks/task.h"
#include "tokenizer/chat_template.h"

namespace vlr {

inline constexpr PromptTemplate kPairScorePrompt{
    .system =
        "Judge whether the Document meets the requirements based on the Query and the Instruct "
        "provided. Note that the answer can only be \"yes\" or \"no\".",
    .default_instruction =
        "Given a search query, retrieve relevant candidates that answer the query.",
    .instruction_label = "<Instruct>: ",
    .query_label = "<Query>:",
    .head_end = "\n<Document",
    .rest_begin = ">:",
    .tail_tokens = 5};
static_assert(kPairScorePrompt.tail_tokens <= kTailBound);

const Task& pair_score();

}  // namespace vlr

#endif  // VLR_ENGINE_TASKS_PAIR_SCORE_H_
