/// vlr rank: a table for people.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "multimodal/source.h"
#include "multimodal/uri.h"
#include "tools/common.h"
#include "tools/request_stream.h"

namespace vlr::tools {
namespace {

namespace fs = std::filesystem;

/// What is ranked: a request, and how to show its documents.
struct Ranking {
  Request request;
  std::vector<std::string> labels;  // one a document
  int64_t top = 0;                  // to be shown; 0: all
};

struct RankCommand {
  ModelOptions model;
  std::string query, instruction, request_file;
  std::vector<std::string> query_images, query_videos, documents, texts;
  int64_t top = 0;

  Status check_allowed(const std::string& path) const;
  Result<Ranking> collect() const;
  int run();
};

/// The first `width` characters of a text on one line.
std::string shorten(std::string_view text, size_t width) {
  size_t end = 0, shown = 0;
  for (; end < text.size(); ++end) {
    if ((text[end] & 0xc0) != 0x80 && ++shown > width) break;
  }
  std::string line(text.substr(0, end));
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < 0x20; }, ' ');
  return printable(line) + (end < text.size() ? "…" : "");
}

std::string label_of(const Content& c) {
  std::vector<std::string> parts;
  for (const Video& v : c.videos)
    parts.push_back(v.file ? describe_source(v.file->path)
                           : fmt::format("{} frames", v.frames.size()));
  for (const Media& m : c.images) parts.push_back(describe_source(m.path));
  parts.insert(parts.end(), c.texts.begin(), c.texts.end());
  return parts.empty() ? "(nothing)" : fmt::format("{}", fmt::join(parts, " "));
}

/// Texts are read here, and media by the library, under the same rules.
Status RankCommand::check_allowed(const std::string& path) const {
  SourceOptions options;
  options.local_files = local_files_of(model.options.local_files);
  if (options.local_files == LocalFiles::kAnywhere || !media::scheme_of(path).empty()) return {};
  return read_source(media_path(path), model.options.media_root, options).error();
}

Result<Ranking> RankCommand::collect() const {
  Ranking out;
  out.top = top;
  Request& request = out.request;
  const auto add = [&](std::string label, Content content) {
    out.labels.push_back(std::move(label));
    request.documents.push_back(std::move(content));
  };
  const bool request_is_input = request_file == "-";
  if (!request_file.empty()) {
    VLR_ASSIGN_OR_RETURN(const RequestFile file, read_requests(request_file));
    if (file.json_lines)
      return {Code::kInvalidArgument,
              request_file + ": holds several requests; vlr score takes those"};
    request = file.requests.front()->request;
    if (top == 0) out.top = request.top_n.value_or(0);
    for (const std::string& warning : request.warnings) tell("vlr: {}\n", printable(warning));
    for (const Content& c : request.documents) out.labels.push_back(label_of(c));
    if (model.options.media_root.empty() && !request_is_input)
      request.media_root = fs::path(request_file).parent_path().string();
  }
  if (!query.empty()) request.query.texts = {query};
  if (!instruction.empty()) request.instruction = instruction;
  for (const std::string& path : query_images)
    request.query.images.push_back({.path = media_path(path)});
  for (const std::string& path : query_videos) {
    request.query.videos.push_back({.frames = {}, .file = Media{.path = media_path(path)}});
  }
  if (request_file.empty() && query.empty() && query_images.empty() && query_videos.empty()) {
    return {Code::kInvalidArgument,
            "no query: give --query, --query-image, --query-video or --request"};
  }

  for (const std::string& text : texts) add(text, {.texts = {text}});
  for (const std::string& path : documents) {
    if (path == "-") {
      if (request_is_input)
        return {Code::kInvalidArgument, "standard input cannot be both the request and documents"};
      // Lines of documents: {"text": ..., "image": ...}
      VLR_ASSIGN_OR_RETURN(const std::string text, read_input("-"));
      int64_t number = 0;
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        const std::string line = text.substr(begin, end - begin);
        begin = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        Content content = parse_side(line);
        std::string label = content.error.empty() ? label_of(content) : line;
        if (!content.error.empty())
          content.error = fmt::format("line {} of standard input: {}", number, content.error);
        add(std::move(label), std::move(content));
      }
      continue;
    }
    std::error_code no_path;
    if (media::scheme_of(path).empty() && !fs::exists(path, no_path)) {
      const std::string why =
          fmt::format("{}: no such file (a document given as text goes behind --text)", path);
      if (documents.size() + texts.size() == 1) return {Code::kNotFound, why};
      add(path, {.error = why});  // costs itself
      continue;
    }
    if (const Status allowed = check_allowed(path); !allowed.ok()) {
      add(path, {.error = allowed.message()});
      continue;
    }
    const Result<FileUse> kind = kind_of(path);
    if (!kind) {  // costs itself
      add(path, {.error = kind.error().message()});
    } else if (*kind == FileUse::kPicture) {
      add(describe_source(path), {.images = {{.path = media_path(path)}}});
    } else if (*kind == FileUse::kVideo) {
      add(describe_source(path),
          {.videos = {{.frames = {}, .file = Media{.path = media_path(path)}}}});
    } else {
      auto read = read_input(path);
      if (!read) {
        add(path, {.error = read.error().message()});
        continue;
      }
      std::string text = *std::move(read);
      constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
      if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
      while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
      add(fmt::format("{}: {}", path, text), {.texts = {text}});
    }
  }
  if (request.documents.empty())
    return {Code::kInvalidArgument, "nothing to rank: give files, --text or --request"};
  return out;
}

int RankCommand::run() {
  auto ranking = collect();
  if (!ranking) return fail(ranking.error());
  const Request& request = ranking->request;
  auto reranker = model.open();
  if (!reranker) return fail(reranker.error());
  Result<Response> response = Response{};
  {
    Progress progress(std::ssize(request.documents), "documents");
    response = reranker->score(request, [&](const DocumentResult&) { progress.step(); });
  }
  if (!response) return fail(response.error());

  std::vector<const DocumentResult*> order;
  for (const DocumentResult& r : response->results) order.push_back(&r);
  std::stable_sort(order.begin(), order.end(),
                   [](const DocumentResult* a, const DocumentResult* b) {
                     if (a->scored() != b->scored()) return a->scored();
                     return a->scored() && a->log_odds > b->log_odds;
                   });

  fmt::print("query: {}\n\n", shorten(label_of(request.query), 90));
  fmt::print("{:>3}  {:<10}  {:>6}  {:>8}  {:>6}  {}\n", "#", "", "score", "log-odds", "tokens",
             "document");
  int64_t rank = 0;
  for (const DocumentResult* r : order) {
    const std::string label = shorten(ranking->labels[static_cast<size_t>(r->index)], 70);
    if (!r->scored()) {
      fmt::print("{:>3}  {:<10}  {:>6}  {:>8}  {:>6}  {}\n     {}\n", "-",
                 document_status_name(r->status), "", "", "", label, printable(r->message));
      continue;
    }
    if (ranking->top > 0 && rank == ranking->top) continue;
    const auto cells = static_cast<size_t>(std::lround(10 * r->score));
    std::string bar;
    for (size_t i = 0; i < 10; ++i) bar += i < cells ? "█" : "·";
    fmt::print("{:>3}  {}  {:>6.4f}  {:>+8.3f}  {:>6}  {}{}{}\n", ++rank, bar, r->score,
               r->log_odds, r->num_tokens, label, r->truncated ? "  [cut]" : "",
               r->message.empty() ? "" : "  [" + printable(r->message) + "]");
  }
  const Usage& usage = response->usage;
  fmt::print("\n{} document{}, {} tokens ({} shared), {:.3f} s on {} ({}); {} loaded in {:.3f} s\n",
             request.documents.size(), request.documents.size() == 1 ? "" : "s", usage.tokens,
             usage.shared_prefix_tokens, usage.seconds.total, reranker->device(), reranker->dtype(),
             printable(model.model), usage.seconds.load);
  return kServed;
}

}  // namespace

void add_rank(CLI::App& app, Run& run) {
  auto command = std::make_shared<RankCommand>();
  command->model.add_to(app, kScores);
  app.add_option("-q,--query", command->query, "Query text");
  add_repeatable(app, "--query-image", command->query_images, "Query image");
  add_repeatable(app, "--query-video", command->query_videos, "Query video, a file");
  app.add_option("--instruction", command->instruction,
                 "Task instruction; the official one by default");
  add_repeatable(app, "--text", command->texts, "A document given as text");
  app.add_option("--request", command->request_file,
                 "Query and documents from a request's JSON; - is standard input");
  app.add_option("--top", command->top, "Print only the best; 0: all")
      ->transform(whole_number(0))
      ->capture_default_str();
  app.add_option(
      "documents", command->documents,
      "Text, image and video files, or - for JSON lines {\"text\": ..., \"image\": ...}");
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
