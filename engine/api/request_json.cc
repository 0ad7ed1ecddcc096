#include "engine/api/request_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

#include "model/json.h"
#include "vlr/json.h"

namespace vlr {
namespace {

using nlohmann::json;

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

/// A string or a list of strings.
Result<std::vector<std::string>> strings(const json& value, std::string_view what) {
  std::vector<std::string> out;
  const auto add = [&](const json& item) {
    if (item.is_string()) out.push_back(item.get<std::string>());
    return item.is_string();
  };
  if (value.is_null() || add(value)) return out;
  if (!value.is_array())
    return wrong(
        fmt::format("{} must be a string or a list of strings, got {}", what, value.type_name()));
  for (const json& item : value) {
    if (!add(item))
      return wrong(
          fmt::format("{} must be a list of strings, got a list with {}", what, item.type_name()));
  }
  return out;
}

/// A video file, or a list of frames.
Result<Video> video_of(const json& value) {
  Video video;
  if (value.is_string()) {
    video.file = Media{.path = value.get<std::string>()};
    return video;
  }
  VLR_ASSIGN_OR_RETURN(const std::vector<std::string> paths, strings(value, "video"));
  for (const std::string& path : paths) video.frames.push_back({.path = path});
  return video;
}

/// As upstream reads it: a path; the frames of one video, if the list starts with a picture; else a
/// list of videos.
Result<std::vector<Video>> videos(const json& value) {
  std::vector<Video> out;
  if (value.is_null() || (value.is_array() && value.empty())) return out;
  if (!value.is_string() && !value.is_array()) {
    return wrong(fmt::format("video must be a path, a list of frames or a list of videos, got {}",
                             value.type_name()));
  }
  const bool one = value.is_string() ||
                   (value.front().is_string() && names_picture(value.front().get<std::string>()));
  for (const json& item : one ? json::array({value}) : value) {
    VLR_ASSIGN_OR_RETURN(Video video, video_of(item));
    out.push_back(std::move(video));
  }
  return out;
}

Result<Content> content(const json& side) {
  if (!side.is_object())
    return wrong(
        fmt::format("must be an object with text, image or video, got {}", side.type_name()));
  Content out;
  for (const auto& [key, value] : side.items()) {
    if (key == "text") {
      VLR_ASSIGN_OR_RETURN(out.texts, strings(value, "text"));
    } else if (key == "image") {
      VLR_ASSIGN_OR_RETURN(const std::vector<std::string> paths, strings(value, "image"));
      for (const std::string& path : paths) out.images.push_back({.path = path});
    } else if (key == "video") {
      VLR_ASSIGN_OR_RETURN(out.videos, videos(value));
    } else {
      return wrong(fmt::format("has a key '{}'; known are text, image and video", key));
    }
  }
  return out;
}

Result<ParsedRequest> from_json(const json& root) {
  if (!root.is_object()) return wrong(fmt::format("must be an object, got {}", root.type_name()));
  ParsedRequest out;
  if (const auto it = root.find("instruction"); it != root.end() && !it->is_null()) {
    if (!it->is_string())
      return wrong(fmt::format("instruction must be a string, got {}", it->type_name()));
    out.request.instruction = it->get<std::string>();
  }
  if (const auto it = root.find("fps"); it != root.end() && !it->is_null()) {
    if (!it->is_number() || it->get<double>() <= 0)
      return wrong(fmt::format("fps must be a number above 0, got {}", it->dump()));
    out.request.fps = it->get<double>();
  }
  if (const auto it = root.find("max_frames"); it != root.end() && !it->is_null()) {
    if (!it->is_number_integer() || it->get<int64_t>() < 1)
      return wrong(fmt::format("max_frames must be a whole number above 0, got {}", it->dump()));
    out.request.max_frames = it->get<int64_t>();
  }
  const auto query = root.find("query"), documents = root.find("documents");
  if (query == root.end()) return wrong("no query");
  auto side = content(*query);
  if (!side) return side.error().with_context("query");
  out.request.query = *std::move(side);
  if (documents == root.end() || !documents->is_array()) {
    return wrong(fmt::format("documents must be a list, got {}",
                             documents == root.end() ? "none" : documents->type_name()));
  }
  for (const json& item : *documents) {
    auto document = content(item);
    Content& c = out.request.documents.emplace_back();
    if (document)
      c = *std::move(document);
    else
      c.error = "the document " + document.error().message();
  }
  if (const auto it = root.find("relevant"); it != root.end()) {
    if (!it->is_number_integer())
      return wrong(fmt::format("relevant must be an index, got {}", it->type_name()));
    out.relevant = it->get<int64_t>();
    if (*out.relevant < 0 || *out.relevant >= std::ssize(out.request.documents)) {
      return wrong(fmt::format("relevant is {} of {} documents", *out.relevant,
                               out.request.documents.size()));
    }
  }
  if (const auto it = root.find("log_odds"); it != root.end()) {
    const bool numbers =
        it->is_array() && it->size() == out.request.documents.size() &&
        std::all_of(it->begin(), it->end(), [](const json& v) { return v.is_number(); });
    if (!numbers) return wrong("log_odds must be a list of one number a document");
    for (const json& v : *it) out.log_odds.push_back(v.get<double>());
  }
  return out;
}

}  // namespace

Result<ParsedRequest> parse_request(std::string_view text) {
  const auto root = parse_json(text);
  if (!root) {
    // The text is the caller's, not a file of ours that is damaged.
    const Status& error = root.error();
    return {error.code() == Code::kDataLoss ? Code::kInvalidArgument : error.code(),
            error.message()};
  }
  auto parsed = from_json(*root);
  if (!parsed) return parsed.error().with_context("request");
  return parsed;
}

Result<Request> request_from_json(std::string_view text) {
  VLR_ASSIGN_OR_RETURN(ParsedRequest parsed, parse_request(text));
  return std::move(parsed.request);
}

}  // namespace vlr
