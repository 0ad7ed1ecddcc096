/// vlr profile: one request, every node timed.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "bench/support/all_ops.h"
#include "kernels/core/clock.h"
#include "kernels/core/format_bytes.h"
#include "tools/common.h"
#include "tools/machine.h"
#include "tools/memory_log.h"
#include "tools/node_times.h"
#include "tools/request_stream.h"

namespace vlr::tools {
namespace {

using nlohmann::ordered_json;

constexpr size_t kTopNodes = 20;

/// What happened when, from Options::on_node. Nodes of a run are told one after the other when the
/// run has ended, so it began as long before as they took together.
class Timeline {
 public:
  struct Run {
    std::string name;        // "text.0"
    size_t begin = 0;        // its first node
    double end_seconds = 0;  // since reset()
  };
  struct Memory {
    double seconds = 0;
    MemoryState held;
  };
  struct InUse {
    double seconds = 0;
    int64_t bytes = 0;  // of the whole card, or of the process
  };

  Timeline(const Machine& machine, MemoryLog& log) : machine_(machine), log_(log) {}
  void reset() {
    nodes.clear();
    copies.clear();
    runs.clear();
    in_use.clear();
    start_ = seconds_now();
    memory = {{.seconds = 0, .held = log_.now()}};
    log_.on_change = [this](const MemoryState& held) {
      const std::lock_guard lock(mutex_);
      memory.push_back({.seconds = seconds_now() - start_, .held = held});
    };
    sample();
  }
  /// What comes later is not recorded.
  void end() {
    log_.on_change = nullptr;
    sample();
    memory.push_back({.seconds = seconds_now() - start_, .held = log_.now()});
  }
  void add(const NodeTiming& t) {
    if (runs.empty() || runs.back().name != t.run) {
      runs.push_back({.name = t.run, .begin = nodes.size(), .end_seconds = seconds_now() - start_});
      sample();
    }
    nodes.push_back(t);
  }
  void add(const CopyTiming& t) { copies.push_back(t); }
  void sample() {
    in_use.push_back({.seconds = seconds_now() - start_, .bytes = machine_.memory_in_use()});
  }
  /// Nodes [begin, end) of a run.
  std::span<const NodeTiming> nodes_of(size_t run) const {
    const size_t end = run + 1 < runs.size() ? runs[run + 1].begin : nodes.size();
    return std::span(nodes).subspan(runs[run].begin, end - runs[run].begin);
  }

  std::vector<NodeTiming> nodes;
  std::vector<CopyTiming> copies;
  std::vector<Run> runs;
  std::vector<Memory> memory;
  std::vector<InUse> in_use;

 private:
  const Machine& machine_;
  MemoryLog& log_;
  std::mutex mutex_;  // of memory, while the log calls
  double start_ = 0;
};

/// The Trace Event Format that chrome://tracing and ui.perfetto.dev read: a track for each kind of
/// run, its nodes inside, and counters of memory, on the device and on the host.
ordered_json trace_of(const Timeline& timeline, const Machine& machine) {
  ordered_json events = ordered_json::array();
  const auto name_track = [&](const char* what, int track, const std::string& name) {
    events.push_back(
        {{"ph", "M"}, {"name", what}, {"pid", 1}, {"tid", track}, {"args", {{"name", name}}}});
  };
  name_track("process_name", 0, "vlr");
  std::map<std::string, int> tracks;
  for (const char* kind : {"vision", "prefix", "text", "copies of weights"}) {
    const int track = static_cast<int>(tracks.size()) + 1;
    tracks[kind] = track;
    name_track("thread_name", track, kind);
  }
  size_t copy = 0;
  for (size_t r = 0; r < timeline.runs.size(); ++r) {
    const Timeline::Run& run = timeline.runs[r];
    const std::span<const NodeTiming> nodes = timeline.nodes_of(r);
    const auto slice_on = [&](int on, const std::string& name, std::string_view category,
                              double start, double seconds, ordered_json args) {
      events.push_back({{"ph", "X"},
                        {"name", name},
                        {"cat", category},
                        {"pid", 1},
                        {"tid", on},
                        {"ts", 1e6 * start},
                        {"dur", 1e6 * seconds},
                        {"args", std::move(args)}});
    };
    const int track = tracks[run.name.substr(0, run.name.find('.'))];
    const auto slice = [&](const std::string& name, std::string_view category, double start,
                           double seconds, ordered_json args) {
      slice_on(track, name, category, start, seconds, std::move(args));
    };
    const double total = total_seconds(nodes);
    double at = run.end_seconds - total;
    for (; copy < timeline.copies.size() && timeline.copies[copy].run == run.name; ++copy) {
      const CopyTiming& c = timeline.copies[copy];
      slice_on(tracks["copies of weights"], c.name, "copy", at + c.start, c.seconds,
               {{"mbytes", 1e-6 * c.bytes}, {"GB/s", 1e-9 * c.bytes / c.seconds}});
    }
    slice(run.name, "run", at, total, {{"nodes", nodes.size()}});
    for (const NodeTiming& t : nodes) {
      ordered_json args = {{"op", t.op}, {"gflop", 1e-9 * t.flops}, {"mbytes", 1e-6 * t.bytes}};
      if (t.seconds > 0 && machine.peak.flops > 0) {
        args["roof_pct"] = 100 *
                           bench::roof_seconds({.bytes = t.bytes, .flops = t.flops}, machine.peak) /
                           t.seconds;
      }
      slice(t.name, t.op, at, t.seconds, std::move(args));
      at += t.seconds;
    }
  }
  const auto counter = [&](const char* name, double seconds, ordered_json values) {
    events.push_back({{"ph", "C"},
                      {"name", name},
                      {"pid", 1},
                      {"ts", 1e6 * seconds},
                      {"args", std::move(values)}});
  };
  for (const Timeline::Memory& m : timeline.memory) {
    ordered_json device = ordered_json::object(), host = ordered_json::object();
    for (const auto& [purpose, bytes] : m.held.purposes) {
      device[purpose] = bytes.device;
      host[purpose] = bytes.host;
    }
    counter("memory of the device by purpose, bytes", m.seconds, std::move(device));
    counter("memory of the host by purpose, bytes", m.seconds, std::move(host));
  }
  for (const Timeline::InUse& u : timeline.in_use)
    counter(machine.gpu ? "the whole card, bytes" : "the process, bytes", u.seconds,
            {{"in use", u.bytes}});
  return {{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}};
}

/// The shapes that ops ran at, and how often, for `vlr lab --shapes`.
class ShapeLog {
 public:
  void start() {
    ops::run_observer = [this](std::string_view op, std::string_view impl, const void* args) {
      for (const bench::OpLab& lab : ops_) {
        if (lab.name == op) ++shapes_[{lab.name, std::string(impl), lab.shape_of(args)}];
      }
    };
  }
  void stop() { ops::run_observer = nullptr; }
  ordered_json json() const {
    ordered_json out = ordered_json::array();
    for (const auto& [key, count] : shapes_)
      out.push_back({{"op", key.op},
                     {"dtype", dtype_name(key.shape.dtype)},
                     {"shape", key.shape.axes_text()},
                     {"impl", key.impl},
                     {"count", count}});
    return out;
  }

 private:
  struct Key {
    std::string op, impl;
    bench::Shape shape;
    bool operator<(const Key& o) const {
      return std::tuple(op, impl, shape.dtype, shape.axes_text()) <
             std::tuple(o.op, o.impl, o.shape.dtype, o.shape.axes_text());
    }
  };
  const std::vector<bench::OpLab> ops_ = bench::all_ops();
  std::map<Key, int64_t> shapes_;
};

struct ProfileCommand {
  ModelOptions model;
  std::string request_file, trace_to, shapes_to;
  bool peaks = true;

  int run();

 private:
  Status write_trace(const Reranker& reranker, const Usage::Seconds& seconds,
                     const Timeline& timeline, const Machine& machine) const;
};

/// Scores a request on the timeline, warmed up by another one.
Result<Response> score_warm(Reranker& reranker, const Request& request, Timeline& timeline,
                            ShapeLog* shapes) {
  // With another query, so that its prefix is not the one that is profiled.
  Request warm = request;
  warm.query.texts.emplace_back(".");
  VLR_RETURN_IF_ERROR(reranker.score(warm).error());
  timeline.reset();
  if (shapes) shapes->start();
  VLR_ASSIGN_OR_RETURN(Response response, reranker.score(request));
  if (shapes) shapes->stop();
  timeline.end();
  return response;
}

/// What was scored, and in what time.
void print_summary(const Reranker& reranker, const Response& response, double nodes_seconds,
                   const Machine& machine) {
  int64_t scored = 0;
  for (const DocumentResult& r : response.results) scored += r.scored();
  const Usage& usage = response.usage;
  const Usage::Seconds& s = usage.seconds;
  fmt::print("{}, {}, on {}; opened in {:.2f} s\n", reranker.model_name(), reranker.dtype(),
             reranker.device(), s.load);
  if (machine.peak.flops > 0) fmt::print("{}\n", machine.describe_peak());
  fmt::print("{} documents, {} scored, {} tokens ({} shared), {} image tokens\n",
             response.results.size(), scored, usage.tokens, usage.shared_prefix_tokens,
             usage.image_tokens);
  fmt::print(
      "{:.3f} ms: vision {:.3f}, text {:.3f}, of both in nodes {:.3f}; media {:.3f}, "
      "prompts {:.3f}\n",
      1e3 * s.total, 1e3 * s.vision, 1e3 * s.text, 1e3 * nodes_seconds, 1e3 * s.media,
      1e3 * s.prompt);
}

/// Where the time went.
void print_timeline(const Timeline& timeline, double nodes_seconds, const bench::Peak& peak) {
  const auto table = [&](const char* title, GroupBy by, size_t most) {
    fmt::print("\n{}\n", title);
    print_times(group_times(timeline.nodes, by, peak), nodes_seconds, most);
  };
  table("ops", GroupBy::kOp, timeline.nodes.size());
  table("places, all layers together", GroupBy::kPlace, kTopNodes);
  table("nodes", GroupBy::kNode, kTopNodes);
  if (timeline.copies.empty()) return;
  double seconds = 0, bytes = 0;
  for (const CopyTiming& c : timeline.copies) {
    seconds += c.seconds;
    bytes += c.bytes;
  }
  fmt::print("\ncopies of weights beside the nodes: {} in {:.3f} ms, {:.1f} GB/s\n",
             format_bytes(std::llround(bytes)), 1e3 * seconds, 1e-9 * bytes / seconds);
}

void print_memory(const MemoryLog& memory, int64_t peak_bytes, const Machine& machine) {
  const auto line = [](std::string_view name, int64_t bytes) {
    fmt::print("{:<42} {:>12}\n", name, format_bytes(bytes));
  };
  memory.print();
  fmt::print("\n");
  line("most on the device, loading included", peak_bytes);
  line(machine.gpu ? "the whole card" : "the process", machine.memory_in_use());
}

Status ProfileCommand::write_trace(const Reranker& reranker, const Usage::Seconds& seconds,
                                   const Timeline& timeline, const Machine& machine) const {
  ordered_json trace = trace_of(timeline, machine);
  trace["otherData"] = machine.context;
  ordered_json& about = trace["otherData"];
  about["model"] = model.model;
  about["device"] = reranker.device();
  about["dtype"] = reranker.dtype();
  about["quant"] = reranker.quant();
  about["seconds"] = {{"total", seconds.total}, {"vision", seconds.vision}, {"text", seconds.text}};
  return write_line(trace_to, trace.dump());
}

int ProfileCommand::run() {
  const auto file = read_requests(request_file);
  if (!file) return fail(file.error());
  if (file->json_lines)
    return fail({Code::kInvalidArgument, request_file + ": several requests, one is profiled"});
  const Request& request = file->requests.front()->request;
  if (model.options.media_root.empty() && request_file != "-")
    model.options.media_root = std::filesystem::path(request_file).parent_path().string();

  const auto machine = Machine::open(model.options, peaks);
  if (!machine) return fail(machine.error());
  MemoryLog memory;
  Timeline timeline(*machine, memory);
  model.options.on_memory = [&](const MemoryEvent& e) { memory.add(e); };
  model.options.on_node = [&](const NodeTiming& t) { timeline.add(t); };
  model.options.on_copy = [&](const CopyTiming& t) { timeline.add(t); };
  model.options.vision_cache_bytes = 0;  // or the tower would run for the warm request only
  model.options.vision_cache_dir.clear();
  auto reranker = model.open();
  if (!reranker) return fail(reranker.error());
  ShapeLog shapes;
  const auto response =
      score_warm(*reranker, request, timeline, shapes_to.empty() ? nullptr : &shapes);
  if (!response) return fail(response.error());

  const double nodes_seconds = total_seconds(timeline.nodes);
  print_summary(*reranker, *response, nodes_seconds, *machine);
  print_timeline(timeline, nodes_seconds, machine->peak);
  print_memory(memory, reranker->peak_memory(), *machine);
  if (!shapes_to.empty()) {
    const Status s = write_line(shapes_to, shapes.json().dump(1));
    if (!s.ok()) return fail(s);
  }
  if (trace_to.empty()) return kServed;
  const Status written = write_trace(*reranker, response->usage.seconds, timeline, *machine);
  return written.ok() ? kServed : fail(written);
}

}  // namespace

void add_profile(CLI::App& app, Run& run) {
  auto command = std::make_shared<ProfileCommand>();
  command->model.add_to(app, kScores & ~kVisionCache, kVisionCache);
  app.add_option("-r,--request", command->request_file, "Request JSON; - is standard input")
      ->required();
  app.add_option("--trace", command->trace_to,
                 "Write every node and the memory over time, for ui.perfetto.dev");
  app.add_option("--shapes", command->shapes_to,
                 "Write the shapes that ops ran at, for `vlr lab time --shapes`");
  app.add_flag_callback(
      "--no-peaks", [command] { command->peaks = false; },
      "Do not measure what the machine can do at most");
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
