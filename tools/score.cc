/// vlr score: the machine form.
#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/runtime/safetensors.h"
#include "tools/common.h"
#include "vlr/json.h"

namespace vlr::tools {
namespace {

/// Values of the run, kept for a safetensors file.
struct Dump {
  std::string path;  // empty: nothing is dumped
  std::vector<NamedShape> shapes;
  std::map<std::string, std::vector<float>> data;

  void observe(std::string_view name, std::span<const int64_t> shape, const float* values) {
    NamedShape& s = shapes.emplace_back();
    s.name = std::string(name);
    s.dtype = DType::kF32;
    s.shape.assign(shape.begin(), shape.end());
    data[s.name].assign(values, values + s.numel());
  }
  Status write() const {
    if (path.empty()) return {};
    if (shapes.empty())
      return {Code::kNotFound,
              "--dump: no value has that in its name; vlr inspect --graph text lists them"};
    return write_safetensors(
        path, shapes, [&](const NamedShape& t, int64_t begin, std::span<std::byte> out) -> Status {
          std::memcpy(out.data(),
                      reinterpret_cast<const std::byte*>(data.at(t.name).data()) + begin,
                      out.size());
          return {};
        });
  }
};

struct ScoreCommand {
  ModelOptions model;
  std::string request_file = "-";
  bool explain = false, times = false, usage = false;
  size_t at_once = 256;
  std::vector<std::string> dump;
  std::string dump_to = "dump.safetensors";

  int run();
  int run_one(Reranker& reranker, const Request& request, const Dump& values) const;
  int run_lines(Reranker& reranker, const RequestFile& file) const;
};

int ScoreCommand::run() {
  auto file = read_requests(request_file);
  if (!file) return fail(file.error());
  if (model.options.media_root.empty() && request_file != "-") {
    model.options.media_root = std::filesystem::path(request_file).parent_path().string();
  }
  Dump values;
  if (!dump.empty()) {
    values.path = dump_to;
    model.options.wants_value = [this](std::string_view name) {
      return std::any_of(dump.begin(), dump.end(), [&](const std::string& part) {
        return name.find(part) != std::string_view::npos;
      });
    };
    model.options.on_value = [&](std::string_view name, std::span<const int64_t> shape,
                                 const float* data) { values.observe(name, shape, data); };
  }
  std::map<std::string, std::pair<double, int64_t>> per_op;
  if (times) {
    model.options.on_node = [&](const NodeTiming& t) {
      auto& [seconds, count] = per_op[t.run.substr(0, t.run.find('.')) + " " + t.op];
      seconds += t.seconds;
      ++count;
    };
  }
  auto reranker = model.open();
  if (!reranker) return fail(reranker.error());
  int code = kServed;
  if (!file->json_lines) {
    code = run_one(*reranker, file->requests.front()->request, values);
  } else {
    code = run_lines(*reranker, *file);
    if (const Status s = values.write(); code == kServed && !s.ok()) code = fail(s);
  }
  for (const auto& [op, time] : per_op)
    tell("{:28} {:6} runs {:9.3f} ms\n", op, time.second, 1e3 * time.first);
  return code;
}

int ScoreCommand::run_one(Reranker& reranker, const Request& request, const Dump& values) const {
  Result<Response> response = Response{};
  {
    Progress progress(std::ssize(request.documents), "documents");
    response = reranker.score(request, [&](const DocumentResult&) { progress.step(); });
  }
  if (!response) return fail(response.error());
  std::vector<Explanation> explanations;
  if (explain) {
    auto explained = reranker.explain(request);
    if (!explained) return fail(explained.error());
    explanations = *std::move(explained);
  }
  // All that can fail comes first: what is unusable prints nothing.
  if (const Status s = values.write(); !s.ok()) return fail(s);
  fmt::print("{}\n", response_json(*response, reranker, explanations, {.indent = 1}));
  return kServed;
}

/// Batches hold pairs of many requests, so lines are served some hundred at a time.
int ScoreCommand::run_lines(Reranker& reranker, const RequestFile& file) const {
  Progress progress(std::ssize(file.requests), "requests");
  for (size_t begin = 0; begin < file.requests.size(); begin += at_once) {
    const size_t end = std::min(begin + at_once, file.requests.size());
    std::vector<Request> usable;
    for (size_t i = begin; i < end; ++i) {
      if (file.requests[i]) usable.push_back(file.requests[i]->request);
    }
    const auto responses = reranker.score(usable);
    if (!responses) return fail(responses.error());
    if (usage && !responses->empty()) {
      progress.clear();
      const Usage& u = responses->front().usage;
      tell(
          "{} requests in {:.3f} s: media {:.3f}, prompts {:.3f}, vision {:.3f}, text {:.3f}; "
          "{} tokens in {} batches, {} image tokens in {}; {} media decoded, {} cached\n",
          usable.size(), u.seconds.total, u.seconds.media, u.seconds.prompt, u.seconds.vision,
          u.seconds.text, u.tokens, u.batches, u.image_tokens, u.vision_batches, u.decoded_media,
          u.vision_cache_hits);
    }
    size_t next = 0;
    for (size_t i = begin; i < end; ++i, progress.step()) {
      if (!file.requests[i]) {
        fmt::print("{}\n", nlohmann::json{{"error", file.requests[i].error().message()}}.dump(
                               -1, ' ', false, nlohmann::json::error_handler_t::replace));
        continue;
      }
      const Response& response = (*responses)[next];
      std::vector<Explanation> explanations;
      if (explain) {
        auto explained = reranker.explain(usable[next]);
        if (!explained) return fail(explained.error());
        explanations = *std::move(explained);
      }
      fmt::print("{}\n", response_json(response, reranker, explanations, {.usage = false}));
      ++next;
    }
  }
  return kServed;
}

}  // namespace

void add_score(CLI::App& app, Run& run) {
  auto command = std::make_shared<ScoreCommand>();
  command->model.add_to(app, kScores);
  app.add_option("-r,--request", command->request_file,
                 "Request JSON, or JSON lines; - is standard input")
      ->capture_default_str();
  app.add_flag("--explain", command->explain,
               "Add prompt, token ids, positions and grids of every document");
  app.add_option("--at-once", command->at_once, "JSON lines that share batches")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--usage", command->usage, "JSON lines: what those at once cost, on stderr");
  app.add_flag("--times", command->times, "Time per op on stderr");
  add_repeatable(app, "--dump", command->dump,
                 "Keep values whose name contains this, as in text.0/layers.3.mlp.residual");
  app.add_option("--dump-to", command->dump_to, "The safetensors file they go to")
      ->capture_default_str();
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
