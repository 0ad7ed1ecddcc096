/// vlr score: the machine form.
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/runtime/safetensors.h"
#include "tools/common.h"
#include "tools/request_stream.h"
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

/// Lines on standard output that a signal does not cut: SIGINT and SIGTERM let the line that is
/// being written end, and then the process does, with 128 and the signal's number. What was printed
/// is out. A second signal waits for nothing.
class WholeLines {
 public:
  static void end_on_signals() {
    struct sigaction action {};
    action.sa_handler = [](int signal) {
      int idle = kIdle, writing = kWriting;
      if (state_.compare_exchange_strong(idle, kEnding)) _exit(128 + signal);
      if (!state_.compare_exchange_strong(writing, signal)) _exit(128 + signal);
    };
    action.sa_flags = SA_RESTART;  // the line goes on
    for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
  }
  static Status print(std::string_view text) {
    int idle = kIdle;
    while (!state_.compare_exchange_strong(idle, kWriting)) {
      pause();  // another thread ends the process
      idle = kIdle;
    }
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
                         std::fputc('\n', stdout) != EOF && std::fflush(stdout) == 0;
    const int why = errno, signal = state_.exchange(kIdle);
    if (signal > 0) _exit(128 + signal);
    if (written) return {};
    return {Code::kInvalidArgument,
            fmt::format("standard output: {}", std::generic_category().message(why))};
  }

 private:
  static constexpr int kIdle = 0, kWriting = -1, kEnding = -2;  // above 0: a signal that waits
  static inline std::atomic<int> state_{kIdle};
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
  int run_lines(Reranker& reranker, RequestStream& stream) const;
  Status run_batch(Reranker& reranker, std::vector<Result<ParsedRequest>>& lines,
                   Progress& progress) const;
};

int ScoreCommand::run() {
  auto stream = RequestStream::open(request_file);
  if (!stream) return fail(stream.error());
  Result<ParsedRequest> request = ParsedRequest();
  if (!stream->json_lines()) {
    auto requests = stream->next(1);
    if (!requests) return fail(requests.error());
    request = std::move(requests->front());
    if (!request) return fail(stream->unusable());
    for (const std::string& warning : request->request.warnings)
      tell("vlr: {}\n", printable(warning));
  }
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
  if (!stream->json_lines()) {
    code = run_one(*reranker, request->request, values);
  } else {
    code = run_lines(*reranker, *stream);
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
  fmt::print("{}\n",
             response_json(*response, reranker, explanations, {.indent = 1, .request = &request}));
  return kServed;
}

/// Batches hold pairs of many requests, so lines are served some hundred at a time.
int ScoreCommand::run_lines(Reranker& reranker, RequestStream& stream) const {
  WholeLines::end_on_signals();
  Progress progress(0, "requests");
  while (true) {
    auto lines = stream.next(at_once);
    if (!lines) return fail(lines.error());
    const Status unusable = stream.unusable();
    if (lines->empty() || (stream.ended() && !unusable.ok() && !progress.any()))
      return unusable.ok() ? kServed : fail(unusable);
    if (const Status s = run_batch(reranker, *lines, progress); !s.ok()) return fail(s);
  }
}

/// Takes the requests out of the lines.
Status ScoreCommand::run_batch(Reranker& reranker, std::vector<Result<ParsedRequest>>& lines,
                               Progress& progress) const {
  std::vector<Request> usable;
  for (Result<ParsedRequest>& line : lines) {
    if (line) usable.push_back(std::move(line->request));
  }
  VLR_ASSIGN_OR_RETURN(const std::vector<Response> responses, reranker.score(usable));
  if (usage && !responses.empty()) {
    progress.clear();
    const Usage& u = responses.front().usage;
    tell(
        "{} requests in {:.3f} s: media {:.3f}, prompts {:.3f}, vision {:.3f}, text {:.3f}; "
        "{} tokens in {} batches, {} image tokens in {}; {} media decoded, {} cached\n",
        usable.size(), u.seconds.total, u.seconds.media, u.seconds.prompt, u.seconds.vision,
        u.seconds.text, u.tokens, u.batches, u.image_tokens, u.vision_batches, u.decoded_media,
        u.vision_cache_hits);
  }
  size_t next = 0;
  for (const Result<ParsedRequest>& line : lines) {
    std::string text;
    if (!line) {
      text = nlohmann::json{{"error", line.error().message()}}.dump(
          -1, ' ', false, nlohmann::json::error_handler_t::replace);
    } else {
      const Request& request = usable[next];
      std::vector<Explanation> explanations;
      if (explain) {
        VLR_ASSIGN_OR_RETURN(explanations, reranker.explain(request));
      }
      text = response_json(responses[next++], reranker, explanations,
                           {.usage = false, .request = &request});
    }
    VLR_RETURN_IF_ERROR(WholeLines::print(text));
    progress.step();
  }
  return {};
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
      ->transform(whole_number(1))
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
