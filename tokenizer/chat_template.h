/// The prompt of a query and a document -> token ids, in the words of a task:
///
///   <|im_start|>system
///   {system}<|im_end|>
///   <|im_start|>user
///   {instruction_label}{instruction}{query_label}{query}{head_end}{rest_begin}{document}<|im_end|>
///   <|im_start|>assistant
///   (and a newline)
///
/// A side is its videos, its images and its texts, with nothing between them; NULL if it has none.
#ifndef VLR_TOKENIZER_CHAT_TEMPLATE_H_
#define VLR_TOKENIZER_CHAT_TEMPLATE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "vlr/status.h"

namespace vlr {

/// Grids count patches; an image, or one temporal patch of a video, is grid_h * grid_w / 4 tokens.
struct PromptImage {
  int64_t grid_h = 0, grid_w = 0;
};
struct PromptVideo {
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;
  std::vector<double> seconds;  ///< [grid_t]: when each temporal patch is shown
};

/// A query or a document. An empty text is a text: only a side without any part becomes NULL.
struct PromptSide {
  std::vector<PromptVideo> videos;
  std::vector<PromptImage> images;
  std::vector<std::string> texts;
};

/// The words of a prompt around those of a user. The texts are constants: they are not copied.
struct PromptTemplate {
  std::string_view system;
  std::string_view default_instruction;  ///< where a request has none
  std::string_view instruction_label, query_label;
  /// The label of the document, in two: the head, which is encoded once for all documents, and the
  /// rest. The label has to be cut where a piece of text ends whatever surrounds it. "\n<Document"
  /// and ">:" do so: no piece goes on after a newline with anything but white space, so one starts
  /// at "<", and letters after it end at ">". NFC joins nothing to ">" across ":", nor to the "t"
  /// before it.
  std::string_view head_end, rest_begin;
  int64_t tail_tokens = 0;  ///< the last ids, which truncation never counts, as upstream's [-5:]
};

struct PromptOptions {
  int64_t max_length = 10240;  ///< without the template's tail, as upstream counts it
  /// Special tokens that a user typed are recognised, as upstream does; otherwise they are plain
  /// text.
  bool allow_special = false;
  bool want_text = false;  ///< fill Prompt::text
};

struct Prompt {
  std::vector<int32_t> ids;  ///< [S]
  /// The first prefix_len ids do not depend on the document, but for how many of them truncation
  /// has left: they end with PromptTemplate::head_end.
  int64_t prefix_len = 0;
  int64_t num_tokens_before_truncation = 0;
  bool truncated = false;
  /// Special tokens, media included, alone are more than max_length. They are all kept, as upstream
  /// does, and no other token of the body is: the score means nothing.
  bool specials_exceed_limit = false;
  /// Truncation left nothing of a document that had text only: the head's tokens take the limit.
  bool document_cut_whole = false;
  int64_t num_head_tokens = 0;  ///< prefix_len before truncation
  std::string text;             ///< placeholders expanded, before truncation
};

/// Part of a prompt, and where in it the user's own words are.
struct MarkedText {
  std::string text;
  std::vector<UserText> user;  ///< sorted, disjoint
};

/// Builds the prompts of one query; what precedes the document is encoded once. Immutable, so
/// threads may share one, each with an Encoder of its own for the same Tokenizer.
class PromptBuilder {
 public:
  /// kInvalidArgument: a tokenizer that lacks the template's special tokens, or has one of its own
  /// that would swallow a part of it.
  static Status check_tokens(const PromptTemplate& words, const Tokenizer& tokenizer);

  /// An empty instruction means the default one. kInvalidArgument: a side that is wrong in itself
  /// (an odd grid, a video without times), or a tokenizer that check_tokens() refuses.
  static Result<PromptBuilder> create(const PromptTemplate& words, std::string_view instruction,
                                      PromptSide query, const PromptOptions& options,
                                      Encoder& encoder);

  /// kInvalidArgument also where allow_special lets in placeholders without an image or video.
  Result<Prompt> build(const PromptSide& document, Encoder& encoder) const;

 private:
  PromptBuilder(const PromptTemplate& words, PromptSide query, const PromptOptions& options,
                const Tokenizer& tokenizer)
      : words_(words), query_(std::move(query)), options_(options), tokenizer_(&tokenizer) {}

  PromptTemplate words_;
  PromptSide query_;
  PromptOptions options_;
  const Tokenizer* tokenizer_;
  int32_t image_pad_ = -1, video_pad_ = -1;
  MarkedText head_;  // up to head_end; expanded if it is shared
  // Whether what the head expands to is the same for every document. It is, unless allow_special
  // let in a placeholder, which takes an image or video away from the document.
  bool head_is_shared_ = false;
  std::vector<int32_t> head_ids_;  // if it is shared
};

/// The first `max_tokens` tokens of texts that stand one behind the other, as text; nothing: they
/// are no more.
std::optional<std::string> first_tokens(std::span<const std::string> texts, int64_t max_tokens,
                                        bool allow_special, Encoder& encoder);

/// What upstream scores in place of a pair whose media it cannot read: a user message NULL and no
/// system message. The result is a constant of the model.
Prompt null_prompt(Encoder& encoder);

}  // namespace vlr

#endif  // VLR_TOKENIZER_CHAT_TEMPLATE_H_
