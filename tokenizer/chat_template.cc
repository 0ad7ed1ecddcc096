#include "tokenizer/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "tokenizer/pretokenize.h"

namespace vlr {
namespace {

constexpr std::string_view kImStart = "<|im_start|>", kImEnd = "<|im_end|>";
constexpr std::string_view kVisionStart = "<|vision_start|>", kVisionEnd = "<|vision_end|>";
constexpr std::string_view kImagePad = "<|image_pad|>", kVideoPad = "<|video_pad|>";
constexpr std::string_view kVideo = "<|vision_start|><|video_pad|><|vision_end|>";

// Far more than a model takes; what a prompt may make us allocate.
constexpr int64_t kMaxMediaTokens = 1 << 22;
constexpr size_t kMaxTextBytes = size_t{1} << 30;

Status invalid(std::string_view what) {
  return {Code::kInvalidArgument, fmt::format("prompt: {}", what)};
}

/// Tokens of one image or of one temporal patch.
int64_t num_tokens(int64_t grid_h, int64_t grid_w) { return grid_h * grid_w / 4; }

/// What the sides of one pair add up to.
struct MediaTokens {
  int64_t image = 0, video = 0;
};

Result<MediaTokens> count_media(const PromptSide& side) {
  const auto is_side = [](int64_t n) { return n >= 2 && n % 2 == 0 && n <= 2 * kMaxMediaTokens; };
  MediaTokens total;
  size_t bytes = 0;
  for (const PromptImage& image : side.images) {
    if (!is_side(image.grid_h) || !is_side(image.grid_w)) {
      return invalid(fmt::format("an image's grid must be even and positive, got {} x {}",
                                 image.grid_h, image.grid_w));
    }
    total.image += std::min(kMaxMediaTokens + 1, num_tokens(image.grid_h, image.grid_w));
  }
  for (const PromptVideo& video : side.videos) {
    if (!is_side(video.grid_h) || !is_side(video.grid_w) || video.grid_t < 1) {
      return invalid(fmt::format(
          "a video's grid must be positive, and even in height and width, got {} x {} x {}",
          video.grid_t, video.grid_h, video.grid_w));
    }
    if (video.seconds.size() != static_cast<size_t>(video.grid_t)) {
      return invalid(fmt::format("a video of {} temporal patches needs as many times, got {}",
                                 video.grid_t, video.seconds.size()));
    }
    for (const double s : video.seconds) {
      if (!(s >= 0 && s < 1e9))
        return invalid(fmt::format("a video's times must be seconds >= 0, got {}", s));
      total.video += std::min(kMaxMediaTokens + 1, num_tokens(video.grid_h, video.grid_w));
    }
  }
  for (const std::string& text : side.texts) bytes += text.size();
  if (total.image > kMaxMediaTokens || total.video > kMaxMediaTokens || bytes > kMaxTextBytes) {
    return invalid(fmt::format(
        "a side may have {} image tokens, {} video tokens and {} bytes of text, "
        "got {}, {} and {}",
        kMaxMediaTokens, kMaxMediaTokens, kMaxTextBytes, total.image, total.video, bytes));
  }
  return total;
}

void add(std::initializer_list<std::string_view> literals, MarkedText& out) {
  for (const std::string_view literal : literals) out.text += literal;
}

/// With allow_special nothing is marked, so that special tokens are recognised everywhere.
void add_user(std::string_view words, bool allow_special, MarkedText& out) {
  const size_t begin = out.text.size();
  append_valid_utf8(words, out.text);
  if (!allow_special && out.text.size() > begin) out.user.push_back({begin, out.text.size()});
}

void add_side(const PromptSide& side, bool allow_special, MarkedText& out) {
  for (size_t i = 0; i < side.videos.size(); ++i) add({kVideo}, out);
  for (size_t i = 0; i < side.images.size(); ++i) add({kVisionStart, kImagePad, kVisionEnd}, out);
  for (const std::string& text : side.texts) add_user(text, allow_special, out);
  if (side.videos.empty() && side.images.empty() && side.texts.empty()) add({"NULL"}, out);
}

/// An <|image_pad|>, or a <|video_pad|> with the tokens around it, that is not a user's words.
struct Placeholder {
  size_t pos;
  bool is_video;
};

std::vector<Placeholder> find_placeholders(const MarkedText& in) {
  std::vector<Placeholder> found;
  const std::string_view text = in.text;
  auto user = in.user.begin();
  for (size_t pos = 0; (pos = text.find("<|", pos)) != text.npos;) {
    while (user != in.user.end() && user->end <= pos) ++user;
    if (user != in.user.end() && user->begin <= pos) {
      pos = user->end;
    } else if (text.substr(pos).starts_with(kImagePad)) {
      found.push_back({pos, false});
      pos += kImagePad.size();
    } else if (text.substr(pos).starts_with(kVideo)) {
      found.push_back({pos, true});
      pos += kVideo.size();
    } else {
      ++pos;
    }
  }
  return found;
}

/// Makes the i-th placeholder of a kind as wide as the i-th image or video; leaves any further
/// ones.
MarkedText expand(const MarkedText& in, const std::vector<const PromptImage*>& images,
                  const std::vector<const PromptVideo*>& videos) {
  MarkedText out;
  size_t copied = 0;
  auto user = in.user.begin();
  const auto copy_to = [&](size_t end) {
    const auto moved = [&](size_t pos) { return pos - copied + out.text.size(); };
    for (; user != in.user.end() && user->begin < end; ++user) {
      out.user.push_back({moved(user->begin), moved(user->end)});
    }
    out.text.append(in.text, copied, end - copied);
    copied = end;
  };
  const auto pad = [&](std::string_view token, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out.text += token;
  };
  auto image = images.begin();
  auto video = videos.begin();
  for (const Placeholder& p : find_placeholders(in)) {
    if (p.is_video && video != videos.end()) {
      copy_to(p.pos);
      for (const double seconds : (*video)->seconds) {
        out.text += fmt::format("<{:.1f} seconds>", seconds);
        out.text += kVisionStart;
        pad(kVideoPad, num_tokens((*video)->grid_h, (*video)->grid_w));
        out.text += kVisionEnd;
      }
      copied += kVideo.size();
      ++video;
    } else if (!p.is_video && image != images.end()) {
      copy_to(p.pos);
      pad(kImagePad, num_tokens((*image)->grid_h, (*image)->grid_w));
      copied += kImagePad.size();
      ++image;
    }
  }
  copy_to(in.text.size());
  return out;
}

MarkedText expand(const MarkedText& in, std::initializer_list<const PromptSide*> sides) {
  std::vector<const PromptImage*> images;
  std::vector<const PromptVideo*> videos;
  for (const PromptSide* side : sides) {
    for (const PromptImage& image : side->images) images.push_back(&image);
    for (const PromptVideo& video : side->videos) videos.push_back(&video);
  }
  return expand(in, images, videos);
}

/// Whether an added token could be recognised across the end of the head.
bool crosses_head_end(std::string_view token, const PromptTemplate& words) {
  const std::string_view end = words.head_end;
  for (size_t i = 1; i < token.size(); ++i) {
    const std::string_view before = token.substr(0, i);
    const size_t n = std::min(before.size(), end.size());
    if (token[i] == words.rest_begin[0] && before.substr(i - n) == end.substr(end.size() - n))
      return true;
  }
  return false;
}

/// Keeps the tail, all special tokens of the body, and of the others the first that there is room
/// for.
void truncate(const Tokenizer& tokenizer, int64_t max_length, const PromptTemplate& words,
              Prompt& prompt) {
  auto& ids = prompt.ids;
  prompt.num_tokens_before_truncation = static_cast<int64_t>(ids.size());
  prompt.num_head_tokens = prompt.prefix_len;
  const auto body = ids.end() - words.tail_tokens;
  if (body - ids.begin() <= max_length) return;
  const auto is_special = [&](int32_t id) { return tokenizer.is_special(id); };
  int64_t room = max_length - std::count_if(ids.begin(), body, is_special);
  prompt.specials_exceed_limit = room < 0;
  const auto head = ids.begin() + prompt.prefix_len;
  auto out = ids.begin();
  size_t left = 0, cut = 0;  // bytes of words between the head and the tail
  for (auto it = ids.begin(); it != ids.end(); ++it) {
    if (it == head) prompt.prefix_len = out - ids.begin();
    const bool is_word = it < body && !is_special(*it), stays = !is_word || room-- > 0;
    if (it >= head && is_word) (stays ? left : cut) += tokenizer.text(*it).size();
    if (stays) *out++ = *it;
  }
  prompt.truncated = out != ids.end();
  prompt.document_cut_whole =
      prompt.num_head_tokens > 0 && cut > 0 && left <= words.rest_begin.size();
  ids.erase(out, ids.end());
  ids.shrink_to_fit();  // a long text has made it many times the limit
}

}  // namespace

Status PromptBuilder::check_tokens(const PromptTemplate& words, const Tokenizer& tokenizer) {
  for (const std::string_view token :
       {kImStart, kImEnd, kVisionStart, kVisionEnd, kImagePad, kVideoPad}) {
    const auto id = tokenizer.token_to_id(token);
    if (!id || !tokenizer.is_special(*id)) {
      return invalid(fmt::format("the tokenizer has no special token {}", token));
    }
  }
  for (const AddedToken& token : tokenizer.added_tokens()) {
    if (crosses_head_end(token.content, words)) {
      return invalid(
          fmt::format("the tokenizer's token {} would swallow the prompt's \"{}{}\"", token.content,
                      words.head_end.substr(words.head_end.rfind('<') + 1), words.rest_begin[0]));
    }
  }
  return {};
}

Result<PromptBuilder> PromptBuilder::create(const PromptTemplate& words,
                                            std::string_view instruction, PromptSide query,
                                            const PromptOptions& options, Encoder& encoder) {
  const Tokenizer& tokenizer = encoder.tokenizer();
  VLR_RETURN_IF_ERROR(check_tokens(words, tokenizer));
  if (options.max_length < 1) {
    return invalid(fmt::format("max_length must be at least 1, got {}", options.max_length));
  }
  if (instruction.size() > kMaxTextBytes) return invalid("the instruction is longer than 1 GB");
  if (auto media = count_media(query); !media) return media.error().with_context("query");

  PromptBuilder out(words, std::move(query), options, tokenizer);
  out.image_pad_ = *tokenizer.token_to_id(kImagePad);
  out.video_pad_ = *tokenizer.token_to_id(kVideoPad);
  MarkedText& head = out.head_;
  add({kImStart, "system\n", words.system, kImEnd, "\n", kImStart, "user\n",
       words.instruction_label},
      head);
  if (instruction.empty()) {
    add({words.default_instruction}, head);
  } else {
    add_user(instruction, options.allow_special, head);
  }
  add({words.query_label}, head);
  add_side(out.query_, options.allow_special, head);
  add({words.head_end}, head);

  out.head_is_shared_ =
      find_placeholders(head).size() == out.query_.images.size() + out.query_.videos.size();
  if (out.head_is_shared_) {
    head = expand(head, {&out.query_});
    encoder.encode(head.text, head.user, out.head_ids_);
  }
  return out;
}

Result<Prompt> PromptBuilder::build(const PromptSide& document, Encoder& encoder) const {
  if (&encoder.tokenizer() != tokenizer_) return invalid("the encoder is for another tokenizer");
  auto media = count_media(document);
  if (!media) return media.error().with_context("document");
  VLR_ASSIGN_OR_RETURN(const MediaTokens query_media, count_media(query_));
  media->image += query_media.image;
  media->video += query_media.video;

  MarkedText rest;
  add({words_.rest_begin}, rest);
  add_side(document, options_.allow_special, rest);
  add({kImEnd, "\n", kImStart, "assistant\n"}, rest);

  Prompt prompt;
  if (head_is_shared_) {
    rest = expand(rest, {&document});
    prompt.ids = head_ids_;
    prompt.prefix_len = static_cast<int64_t>(head_ids_.size());
    if (options_.want_text) prompt.text = head_.text + rest.text;
  } else {  // with allow_special, so that nothing is marked
    rest.text.insert(0, head_.text);
    rest = expand(rest, {&query_, &document});
    if (options_.want_text) prompt.text = rest.text;
  }
  encoder.encode(rest.text, rest.user, prompt.ids);

  const auto check = [&](int32_t pad, std::string_view name, int64_t wanted) -> Status {
    const int64_t found = std::count(prompt.ids.begin(), prompt.ids.end(), pad);
    if (wanted == 0 || found == wanted) return {};
    return invalid(
        fmt::format("{} stands {} times in it, but its media have {} tokens: a text contains it",
                    name, found, wanted));
  };
  VLR_RETURN_IF_ERROR(check(image_pad_, kImagePad, media->image));
  VLR_RETURN_IF_ERROR(check(video_pad_, kVideoPad, media->video));
  truncate(*tokenizer_, options_.max_length, words_, prompt);
  if (!document.images.empty() || !document.videos.empty()) prompt.document_cut_whole = false;
  return prompt;
}

std::optional<std::string> first_tokens(std::span<const std::string> texts, int64_t max_tokens,
                                        bool allow_special, Encoder& encoder) {
  MarkedText all;
  for (const std::string& text : texts) add_user(text, allow_special, all);
  std::vector<int32_t> ids;
  encoder.encode(all.text, all.user, ids);
  if (std::ssize(ids) <= max_tokens) return std::nullopt;
  std::string out =
      encoder.tokenizer().decode(std::span(ids).first(static_cast<size_t>(max_tokens)));
  // A token may end within a character, which then goes.
  size_t last = out.size();
  while (last > 0 && out.size() - last < 3 && (out[last - 1] & 0xC0) == 0x80) --last;
  if (last > 0 && !decode_utf8(out, last - 1).valid) out.resize(last - 1);
  return out;
}

Prompt null_prompt(Encoder& encoder) {
  MarkedText text;
  add({kImStart, "user\nNULL", kImEnd, "\n", kImStart, "assistant\n"}, text);
  Prompt prompt;
  encoder.encode(text.text, prompt.ids);
  prompt.num_tokens_before_truncation = static_cast<int64_t>(prompt.ids.size());
  prompt.text = std::move(text.text);
  return prompt;
}

}  // namespace vlr
