/// vlr rank: a table for people.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "tools/common.h"

namespace vlr::tools {
namespace {

namespace fs = std::filesystem;

struct RankCommand {
  ModelOptions model;
  std::string query, instruction, request_file;
  std::vector<std::string> query_images, documents, texts;
  int64_t top = 0;

  struct Document {
    std::string label;
    Content content;
  };
  Result<std::vector<Document>> collect() const;
  int run();
};

bool is_picture(const fs::path& path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (std::string_view known : {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"}) {
    if (suffix == known) return true;
  }
  return false;
}

/// The first `width` characters of a text on one line.
std::string shorten(std::string_view text, size_t width) {
  std::string out;
  size_t shown = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if ((c & 0xc0) != 0x80 && ++shown > width) return out + "…";
    out += c < 0x20 || c == 0x7f ? ' ' : text[i];
  }
  return out;
}

Result<std::vector<RankCommand::Document>> RankCommand::collect() const {
  std::vector<Document> out;
  const auto from_request = [&](const std::string& path) -> Status {
    VLR_ASSIGN_OR_RETURN(const RequestFile file, read_requests(path));
    for (const auto& parsed : file.requests) {
      if (!parsed) return parsed.error();
      for (const Content& c : parsed->request.documents) {
        std::string label;
        for (const Media& m : c.images) label += m.path + " ";
        for (const Video& v : c.videos) label += fmt::format("{} frames ", v.frames.size());
        for (const std::string& t : c.texts) label += t + " ";
        out.push_back({.label = label.empty() ? "(nothing)" : label, .content = c});
      }
    }
    return {};
  };
  if (!request_file.empty()) VLR_RETURN_IF_ERROR(from_request(request_file));
  for (const std::string& text : texts) out.push_back({.label = text, .content = {.texts = {text}}});
  for (const std::string& path : documents) {
    if (path == "-") {
      // Lines of documents: {"text": ..., "image": ...}
      VLR_ASSIGN_OR_RETURN(const std::string text, read_input("-"));
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        const std::string line = text.substr(begin, end - begin);
        begin = end + 1;
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        VLR_ASSIGN_OR_RETURN(ParsedRequest parsed, parse_request(R"({"query": {}, "documents": [)" + line + "]}"));
        for (Content& c : parsed.request.documents) out.push_back({.label = line, .content = std::move(c)});
      }
    } else if (!fs::exists(path)) {
      return {Code::kNotFound, fmt::format("{}: no such file (a document given as text goes behind --text)", path)};
    } else if (is_picture(path)) {
      out.push_back({.label = path, .content = {.images = {{.path = fs::absolute(path).string()}}}});
    } else {
      VLR_ASSIGN_OR_RETURN(std::string text, read_input(path));
      while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
      out.push_back({.label = fmt::format("{}: {}", path, text), .content = {.texts = {std::move(text)}}});
    }
  }
  return out;
}

int RankCommand::run() {
  auto documents_or = collect();
  if (!documents_or) return fail(documents_or.error());
  const std::vector<Document>& all = *documents_or;
  if (all.empty()) return fail({Code::kInvalidArgument, "nothing to rank: give files, --text or --request"});

  Request request;
  if (!request_file.empty()) {
    const auto file = read_requests(request_file);
    if (!file) return fail(file.error());
    request.query = file->requests.front()->request.query;
    request.instruction = file->requests.front()->request.instruction;
    request.media_root = model.options.media_root.empty() ? fs::path(request_file).parent_path().string() : "";
  }
  if (!query.empty()) request.query.texts = {query};
  if (!instruction.empty()) request.instruction = instruction;
  for (const std::string& path : query_images) request.query.images.push_back({.path = fs::absolute(path).string()});
  for (const Document& d : all) request.documents.push_back(d.content);

  auto reranker = model.open();
  if (!reranker) return fail(reranker.error());
  Progress* progress = nullptr;
  Result<Response> response = Response{};
  {
    Progress shown(std::ssize(all), "documents");
    progress = &shown;
    response = reranker->score(request, [&](const DocumentResult&) { progress->step(); });
  }
  if (!response) return fail(response.error());

  std::vector<const DocumentResult*> order;
  for (const DocumentResult& r : response->results) order.push_back(&r);
  std::stable_sort(order.begin(), order.end(), [](const DocumentResult* a, const DocumentResult* b) {
    if (a->scored() != b->scored()) return a->scored();
    return a->scored() && a->log_odds > b->log_odds;
  });

  std::string shown_query;
  for (const Media& m : request.query.images) shown_query += fs::path(m.path).filename().string() + " ";
  for (const std::string& t : request.query.texts) shown_query += t;
  fmt::print("query: {}\n\n", shorten(shown_query, 90));
  fmt::print("{:>3}  {:<10}  {:>6}  {:>8}  {:>6}  {}\n", "#", "", "score", "log-odds", "tokens", "document");
  int64_t rank = 0;
  for (const DocumentResult* r : order) {
    const std::string label = shorten(all[static_cast<size_t>(r->index)].label, 70);
    if (!r->scored()) {
      fmt::print("{:>3}  {:<10}  {:>6}  {:>8}  {:>6}  {}\n     {}\n", "-", document_status_name(r->status), "", "", "", label, r->message);
      continue;
    }
    if (top > 0 && rank == top) continue;
    const auto cells = static_cast<size_t>(std::lround(10 * r->score));
    std::string bar;
    for (size_t i = 0; i < 10; ++i) bar += i < cells ? "█" : "·";
    fmt::print("{:>3}  {}  {:>6.4f}  {:>+8.3f}  {:>6}  {}{}{}\n", ++rank, bar, r->score, r->log_odds, r->num_tokens, label,
               r->truncated ? "  [cut]" : "", r->message.empty() ? "" : "  [" + r->message + "]");
  }
  const Usage& usage = reranker->usage();
  fmt::print("\n{} documents, {} tokens ({} shared), {:.3f} s on {} ({}), model {} loaded in {:.3f} s\n", all.size(), usage.tokens,
             usage.shared_prefix_tokens, usage.seconds.total, reranker->device(), reranker->dtype(), reranker->model_name(), usage.seconds.load);
  return kServed;
}

}  // namespace

void add_rank(CLI::App& app, Run& run) {
  auto command = std::make_shared<RankCommand>();
  command->model.add_to(app);
  app.add_option("-q,--query", command->query, "Query text");
  app.add_option("--query-image", command->query_images, "Query image (repeatable)");
  app.add_option("--instruction", command->instruction, "Task instruction; the official one by default");
  app.add_option("--text", command->texts, "A document given as text (repeatable)");
  app.add_option("--request", command->request_file, "Query and documents from a request's JSON");
  app.add_option("--top", command->top, "Print only the best; 0: all")->capture_default_str();
  app.add_option("documents", command->documents, "Text and image files, or - for JSON lines {\"text\": ..., \"image\": ...}");
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
