#include "engine/api/request_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <iterator>
#include <utility>
#include <variant>

#include "engine/api/guard.h"
#include "engine/api/json_reader.h"
#include "model/json.h"
#include "vlr/json.h"

namespace vlr {
namespace {

using Kind = JsonReader::Kind;

constexpr size_t kMaxBytes = size_t{64} << 20;
constexpr size_t kMaxWarnings = 8;

Status wrong(std::string message) { return {Code::kInvalidArgument, std::move(message)}; }

/// Whether upstream takes a list that starts with this string for the frames of one video.
bool names_picture(std::string path) {
  std::transform(path.begin(), path.end(), path.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (path.starts_with("data:image/")) return true;
  constexpr std::array<std::string_view, 8> kSuffixes = {".jpg", ".jpeg", ".png",  ".gif",
                                                         ".bmp", ".webp", ".tiff", ".svg"};
  return std::any_of(kSuffixes.begin(), kSuffixes.end(),
                     [&](std::string_view s) { return path.ends_with(s); });
}

/// A key of a request whose value is a number.
struct NumberKey {
  std::string_view name;
  std::variant<std::optional<double> Request::*, std::optional<int64_t> Request::*> member;
  int64_t least = 1;  // of whole numbers; others are above 0
};
constexpr NumberKey kNumbers[] = {
    {"fps", &Request::fps},
    {"sample_fps", &Request::sample_fps},
    {"max_frames", &Request::max_frames},
    {"min_pixels", &Request::min_pixels},
    {"max_pixels", &Request::max_pixels},
    {"max_tokens_per_doc", &Request::max_tokens_per_doc, 0},
    {"max_tokens_per_query", &Request::max_tokens_per_query, 0},
    {"top_n", &Request::top_n, 0},
};

const NumberKey* find_number(std::string_view key) {
  const auto* const it = std::find_if(std::begin(kNumbers), std::end(kNumbers),
                                      [&](const NumberKey& k) { return k.name == key; });
  return it == std::end(kNumbers) ? nullptr : it;
}

std::string needs(const NumberKey& key, std::string_view got) {
  const bool whole = std::holds_alternative<std::optional<int64_t> Request::*>(key.member);
  return fmt::format("{} must be a {}{}, got {}", key.name,
                     whole ? "whole number within 53 bits" : "finite number",
                     key.least == 0 ? ", 0 or more" : " above 0", got);
}

template <class T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Of a side: far beyond what fits into a model, and not so many that they take much memory.
constexpr int64_t kMaxParts = int64_t{1} << 16;

/// Reads a side; the first thing that is wrong with it is kept, and what follows is read past.
class SideReader {
 public:
  explicit SideReader(JsonReader& in) : in_(in) {}

  Content read() {
    const Kind kind = in_.kind();
    if (kind == Kind::kString) {
      add_text("the text");
    } else if (kind == Kind::kArray) {
      in_.each([&] {
        if (room()) part();
      });
    } else if (kind == Kind::kObject) {
      std::vector<std::pair<std::string, Content>> parts;  // of equal keys the last one counts
      in_.members([&](const JsonReader::String& key) {
        member(key, "text, image, video, image_url, video_url and content");
        const auto at = std::ranges::find(parts, key.text, &decltype(parts)::value_type::first);
        if (at != parts.end()) {
          at->second = std::exchange(side_, {});
        } else if (error_.empty()) {
          parts.emplace_back(key.text, std::exchange(side_, {}));
        }
      });
      for (auto& [key, part] : parts) append(std::move(part));
    } else {
      refuse(
          fmt::format("must be a text, a list of parts or an object with text, image or video, "
                      "got {}",
                      json_kind_name(kind)));
    }
    side_.error = std::move(error_);
    return std::move(side_);
  }

 private:
  void refuse(std::string what) {
    if (error_.empty()) error_ = std::move(what);
    in_.skip();
  }
  void expected(std::string_view what, std::string_view kinds) {
    refuse(fmt::format("{} must be {}, got {}", what, kinds, json_kind_name(in_.kind())));
  }

  std::string string(std::string_view what) {
    JsonReader::String s = in_.string();
    if (!s.defect.empty() && error_.empty()) error_ = fmt::format("{} has {}", what, s.defect);
    return std::move(s.text);
  }
  void add_text(std::string_view what) { side_.texts.push_back(string(what)); }

  /// A path, or {"url": path} as chat APIs have it.
  std::string path(std::string_view what) {
    if (in_.kind() == Kind::kString) return string(what);
    std::string out;
    if (in_.kind() != Kind::kObject) {
      expected(what, "a path or an object with a url");
      return out;
    }
    bool found = false;
    in_.members([&](const JsonReader::String& key) {
      if (key.text == "url" && in_.kind() == Kind::kString) {
        out = string(what);
        found = true;
      } else if (key.text == "url") {
        expected(fmt::format("{}.url", what), "a string");
      } else if (key.text != "detail") {  // a wish about sizes, which means nothing here
        unknown_key(key, fmt::format("url and detail in {}", what));
      }
    });
    if (!found && error_.empty()) error_ = fmt::format("{} has no url", what);
    return out;
  }

  void unknown_key(const JsonReader::String& key, std::string_view known) {
    refuse(fmt::format("has a key {}; known are {}", in_quotes(key.text), known));
  }

  /// The member of an object that is a side, or of one that is a part of it.
  void member(const JsonReader::String& key, std::string_view known) {
    if (!key.defect.empty()) return refuse(fmt::format("a key has {}", key.defect));
    if (key.text == "text") {
      texts();
    } else if (key.text == "image" || key.text == "image_url") {
      images(key.text);
    } else if (key.text == "video" || key.text == "video_url") {
      videos(key.text);
    } else if (key.text == "content") {
      content();
    } else {
      unknown_key(key, known);
    }
  }

  /// {"type": "image_url", "image_url": {"url": ...}}
  void part() {
    if (in_.kind() != Kind::kObject) return expected("a part of content", "an object with a type");
    std::optional<std::string> type;
    std::vector<std::string> keys;
    in_.members([&](const JsonReader::String& key) {
      if (key.text == "content") return unknown_key(key, "type and what it names");
      if (key.text == "type") {
        if (in_.kind() == Kind::kString) {
          type = string("type");
        } else {
          expected("type", "a string");
        }
        return;
      }
      keys.push_back(key.text);
      if (in_.kind() == Kind::kNull) return expected(key.text, "what the part is");
      member(key, "type, text, image_url, video_url, image and video");
    });
    if (!error_.empty()) return;
    if (!type) {
      error_ = "a part of content has no type";
    } else if (keys.size() != 1 || keys[0] != *type) {
      error_ = fmt::format(
          "a part of content has the type {}, and {}; known are text, image_url, "
          "video_url, image and video, each with the key of its name",
          in_quotes(*type), keys.empty() ? "nothing else" : "the key " + in_quotes(keys.back()));
    }
  }

  void content() {
    const Kind kind = in_.kind();
    if (kind == Kind::kString) {
      add_text("content");
    } else if (kind == Kind::kArray) {
      in_.each([&] {
        if (room()) part();
      });
    } else if (kind != Kind::kNull) {
      expected("content", "a string or a list of parts");
    }
  }

  void append(Content part) {
    const auto move = [](auto& from, auto& to) {
      to.insert(to.end(), std::make_move_iterator(from.begin()),
                std::make_move_iterator(from.end()));
    };
    move(part.texts, side_.texts);
    move(part.images, side_.images);
    move(part.videos, side_.videos);
  }

  /// Whether one more text, medium, frame or list may come; else says so.
  bool room() {
    if (num_parts_++ < kMaxParts) return true;
    refuse(fmt::format("has more than {} texts, images and frames", kMaxParts));
    return false;
  }

  void texts() {
    const Kind kind = in_.kind();
    if (kind == Kind::kString) {
      add_text("text");
    } else if (kind == Kind::kArray) {
      in_.each([&] {
        if (!room()) return;
        if (in_.kind() == Kind::kString) return add_text("text");
        refuse(fmt::format("text must be a list of strings, got a list with {}",
                           json_kind_name(in_.kind())));
      });
    } else if (kind != Kind::kNull) {
      expected("text", "a string or a list of strings");
    }
  }

  void images(std::string_view what) {
    const Kind kind = in_.kind();
    if (kind == Kind::kArray) {
      in_.each([&] {
        if (!room()) return;
        if (in_.kind() == Kind::kString || in_.kind() == Kind::kObject) {
          side_.images.push_back({.path = path(what)});
        } else {
          refuse(fmt::format("{} must be a list of strings, got a list with {}", what,
                             json_kind_name(in_.kind())));
        }
      });
    } else if (kind != Kind::kNull) {
      side_.images.push_back({.path = path(what)});
    }
  }

  /// As upstream reads it: a path; the frames of one video, if the list starts with a picture; else
  /// a list of videos.
  void videos(std::string_view what) {
    const auto add_file = [&](std::string file) {
      side_.videos.push_back({.frames = {}, .file = Media{.path = std::move(file)}});
    };
    const auto add_frame = [&](Video& video) {
      if (!room()) return;
      if (in_.kind() == Kind::kString || in_.kind() == Kind::kObject) {
        video.frames.push_back({.path = path(what)});
      } else {
        refuse(fmt::format("{} must be a list of strings, got a list with {}", what,
                           json_kind_name(in_.kind())));
      }
    };
    const Kind kind = in_.kind();
    if (kind == Kind::kNull) return;
    if (kind == Kind::kString || kind == Kind::kObject) return add_file(path(what));
    if (kind != Kind::kArray) return expected(what, "a path, a list of frames or a list of videos");
    std::optional<Video> frames;  // the list is those of one video
    bool first = true;
    in_.each([&] {
      const bool is_first = std::exchange(first, false);
      if (frames) return add_frame(*frames);
      if (!room()) return;
      if (in_.kind() == Kind::kArray) {
        Video video;
        in_.each([&] { add_frame(video); });
        side_.videos.push_back(std::move(video));
        return;
      }
      std::string file = path(what);
      if (is_first && names_picture(file)) {
        frames.emplace().frames.push_back({.path = std::move(file)});
      } else {
        add_file(std::move(file));
      }
    });
    if (frames) side_.videos.push_back(*std::move(frames));
  }

  JsonReader& in_;
  Content side_;
  int64_t num_parts_ = 0;
  std::string error_;
};

/// Reads a request; of what is wrong with it as a whole the first thing is kept.
class RequestReader {
 public:
  explicit RequestReader(std::string_view text) : in_(text) {}

  Result<ParsedRequest> read() {
    const Kind kind = in_.kind();
    if (kind == Kind::kObject) {
      in_.members([&](const JsonReader::String& key) { member(key); });
    } else {
      refuse(fmt::format("must be an object, got {}", json_kind_name(kind)));
    }
    in_.finish();
    if (!in_.ok()) return wrong(in_.error());
    const auto num_documents = std::ssize(request().documents);
    if (!has_query_) refuse_whole("no query");
    if (!has_documents_) {
      refuse_whole(request().warnings.empty()
                       ? std::string("documents must be a list, got none")
                       : "documents must be a list, got none; " + request().warnings.front());
    }
    if (out_.relevant && (*out_.relevant < 0 || *out_.relevant >= num_documents))
      refuse_whole(fmt::format("relevant is {} of {} documents", *out_.relevant, num_documents));
    if (has_log_odds_ && std::ssize(out_.log_odds) != num_documents)
      refuse_whole("log_odds must be a list of one number a document");
    if (!error_.empty()) return wrong("request: " + error_);
    if (num_unknown_ > kMaxWarnings) {
      request().warnings.push_back(fmt::format("{} more keys are not known and have no effect",
                                               num_unknown_ - kMaxWarnings));
    }
    return std::move(out_);
  }

 private:
  Request& request() { return out_.request; }

  void refuse_whole(std::string what) {
    if (error_.empty()) error_ = std::move(what);
  }
  void refuse(std::string what) {
    refuse_whole(std::move(what));
    in_.skip();
  }

  void member(const JsonReader::String& key) {
    if (key.text == "query") {
      has_query_ = true;
      request().query = SideReader(in_).read();
      if (!request().query.error.empty()) refuse_whole("query: " + request().query.error);
    } else if (key.text == "documents") {
      documents();
    } else if (key.text == "instruction" || key.text == "instruct") {
      instruction(key.text);
    } else if (const NumberKey* number = find_number(key.text)) {
      const std::string text(in_.skip());
      if (text == "null") return;
      const auto value = number_of<double>(text);
      const Status set = value ? set_request_number(request(), key.text, *value)
                               : wrong(needs(*number, in_quotes(text)));
      if (!set.ok()) refuse_whole(set.message());
    } else if (key.text == "return_documents") {
      const std::string_view text = in_.skip();
      request().return_documents = text == "true";
      if (text != "true" && text != "false" && text != "null")
        refuse_whole("return_documents must be true or false, got " + in_quotes(text));
    } else if (key.text == "relevant") {
      const std::string_view text = in_.skip();
      out_.relevant = number_of<int64_t>(text);
      if (!out_.relevant) refuse_whole("relevant must be an index, got " + in_quotes(text));
    } else if (key.text == "log_odds") {
      log_odds();
    } else {
      in_.skip();
      if (++num_unknown_ <= kMaxWarnings) {
        request().warnings.push_back(
            fmt::format("the key {} is not known and has no effect", in_quotes(key.text)));
      }
    }
  }

  void documents() {
    has_documents_ = true;
    request().documents.clear();
    const Kind kind = in_.kind();
    if (kind == Kind::kArray) {
      in_.each([&] {
        if (std::ssize(request().documents) == kMaxDocuments)
          return in_.give_up(fmt::format("request: more than {} documents", kMaxDocuments));
        add_document();
      });
    } else if (kind == Kind::kString || kind == Kind::kObject) {  // one, as vLLM takes it
      add_document();
    } else {
      refuse(fmt::format("documents must be a list, a text or an object, got {}",
                         json_kind_name(kind)));
    }
  }

  void add_document() {
    Content& c = request().documents.emplace_back(SideReader(in_).read());
    if (c.error.empty()) return;
    // The document must be a list..., it has a key...: or something of it has or must be.
    const bool of_all = c.error.starts_with("must ") || c.error.starts_with("has ");
    c = {.error =
             (of_all ? "the document " : "the document: ") + c.error};  // nobody needs the rest
  }

  void instruction(std::string_view key) {
    if (in_.kind() == Kind::kNull) {
      in_.skip();
    } else if (in_.kind() != Kind::kString) {
      refuse(fmt::format("{} must be a string, got {}", key, json_kind_name(in_.kind())));
    } else {
      JsonReader::String s = in_.string();
      if (!s.defect.empty()) refuse_whole(fmt::format("{} has {}", key, s.defect));
      if (!request().instruction.empty() && request().instruction != s.text)
        request().warnings.push_back("instruction and instruct differ; the last one counts");
      request().instruction = std::move(s.text);
    }
  }

  void log_odds() {
    has_log_odds_ = true;
    out_.log_odds.clear();
    if (in_.kind() != Kind::kArray)
      return refuse("log_odds must be a list of one number a document");
    in_.each([&] {
      if (const auto value = number_of<double>(in_.skip())) out_.log_odds.push_back(*value);
    });
  }

  JsonReader in_;
  ParsedRequest out_;
  std::string error_;
  bool has_query_ = false, has_documents_ = false, has_log_odds_ = false;
  size_t num_unknown_ = 0;
};

}  // namespace

Status set_request_number(Request& request, std::string_view key, double value) {
  const NumberKey* const number = find_number(key);
  if (!number) {
    return wrong(fmt::format("no number of a request is called {}; known are {}", in_quotes(key),
                             request_number_keys()));
  }
  if (const auto* real = std::get_if<std::optional<double> Request::*>(&number->member)) {
    if (!(value > 0) || !std::isfinite(value)) return wrong(needs(*number, fmt::to_string(value)));
    request.** real = value;
    return {};
  }
  constexpr double kMost = 0x1p53;  // up to which every whole number is a double
  if (value != std::floor(value) || value < static_cast<double>(number->least) || value > kMost)
    return wrong(needs(*number, fmt::to_string(value)));
  request.*std::get<std::optional<int64_t> Request::*>(number->member) =
      static_cast<int64_t>(value);
  return {};
}

std::string request_number_keys() {
  std::string out;
  for (const NumberKey& k : kNumbers) out += (out.empty() ? "" : ", ") + std::string(k.name);
  return out;
}

Content parse_side(std::string_view text) {
  JsonReader in(text);
  Content side = SideReader(in).read();
  in.finish();
  if (!in.ok()) return {.error = in.error()};
  return side;
}

Result<ParsedRequest> parse_request(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return wrong(
        fmt::format("request: JSON of {} bytes; at most {} are read", text.size(), kMaxBytes));
  }
  return guarded([&] { return RequestReader(text).read(); });
}

Result<Request> request_from_json(std::string_view text) {
  VLR_ASSIGN_OR_RETURN(ParsedRequest parsed, parse_request(text));
  return std::move(parsed.request);
}

}  // namespace vlr
