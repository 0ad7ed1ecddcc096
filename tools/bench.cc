/// vlr bench: whole workloads, straight on the model runner, so a model needs no tokenizer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/runtime/safetensors.h"
#include "model/synthetic.h"
#include "model/weight_plan.h"
#include "tools/common.h"
#include "tools/load_times.h"
#include "tools/machine.h"
#include "tools/node_times.h"
#include "tools/open_model.h"
#include "tools/workload.h"
#include "tools/workload_result.h"

#if VLR_WITH_CUDA
#include "kernels/cuda/blas.h"
#endif

namespace vlr::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr double kTimingSeconds = 1.5;  // of a workload, about

/// Times runs as a user has them.
Status time_runs(int num_runs, ClockedRuns& runs, const OpenModel& m, const Machine& machine,
                 WorkloadResult& out) {
  const int64_t replays = m.runner().score().num_replays();
  const auto disk_stats = [&] {
    return m.model().stream ? m.model().stream->disk_stats() : DiskStats();
  };
  const DiskStats disk_before = disk_stats();
  bench::Monitor monitor(machine.gpu ? &machine.gpu->nvml() : nullptr);
  for (int i = 0; i < num_runs; ++i) {
    VLR_ASSIGN_OR_RETURN(const double seconds, runs.run());
    out.seconds.push_back(seconds);
  }
  out.readings = monitor.stop();
  out.disk = disk_stats() - disk_before;
  out.replayed_batches = (m.runner().score().num_replays() - replays) / num_runs;
  out.peak_bytes = m.device().budget().peak();
  out.used_bytes = machine.memory_in_use();
  std::sort(out.seconds.begin(), out.seconds.end());
  return {};
}

/// Times nodes. Observed runs launch op by op; the first of them shows what that needs.
Status time_nodes(ClockedRuns& runs, const OpenModel& m, WorkloadResult& out) {
  std::vector<NodeTiming> nodes;
  {
    const ObserverScope watched(m.runner().passes(),
                                {.on_value = {},
                                 .wants_value = {},
                                 .on_node = [&](const NodeTiming& t) { nodes.push_back(t); }});
    for (int i = 0; i < (out.on_gpu ? 2 : 1); ++i) {
      nodes.clear();
      VLR_ASSIGN_OR_RETURN(out.observed_seconds, runs.run());
    }
  }
  out.nodes_seconds = total_seconds(nodes);
  out.ops = group_times(nodes, GroupBy::kOp, out.peak);
  out.places = group_times(nodes, GroupBy::kPlace, out.peak);
  return {};
}

/// Pairs of a workload with their scores, for --scores.
void add_cases(const Work& work, std::span<const float> log_odds,
               std::vector<ordered_json>& cases) {
  const WorkloadSpec& spec = work.spec();
  for (size_t i = 0; i < log_odds.size(); ++i) {
    const auto pair = static_cast<int64_t>(i);
    const std::span<const int32_t> ids = work.ids(pair);
    ordered_json c = {{"workload", spec.name},
                      {"pair", pair},
                      {"log_odds", log_odds[i]},
                      {"ids", std::vector<int32_t>(ids.begin(), ids.end())}};
    if (spec.images) {
      const int64_t patches = spec.patches() / spec.pairs();
      c["patches"] = {pair * patches, patches};  // first, count
      c["grid"] = spec.grid();
    }
    cases.push_back(std::move(c));
  }
}

struct BenchCommand {
  ModelOptions model;
  std::string synthetic, json_to, scores_to, layers_to, commit;
  std::vector<std::string> workloads;
  int repeat = 0;
  bool peaks = true, load = false, drop_cache = false;
  ReadOptions read;

  int run();

 private:
  /// What came of all workloads.
  struct Outcome {
    std::vector<WorkloadResult> results;
    std::vector<std::string> skipped;  // and why
    std::vector<ordered_json> cases;   // for --scores
    int code = kServed;
  };

  Status check_model() const;
  Result<ordered_json> measure_load();
  Result<std::unique_ptr<OpenModel>> open_model();
  void print_model(const OpenModel& m, const Machine& machine) const;
  /// An error ends the command; a workload that cannot run is in the outcome.
  Status run_workloads(OpenModel& m, const Machine& machine, Outcome& out);
  Status run_workload(const WorkloadSpec& spec, OpenModel& m, const Machine& machine, Outcome& out);
  Result<WorkloadResult> measure(Work& work, OpenModel& m, const Machine& machine,
                                 std::vector<ordered_json>& cases) const;
  int num_runs(const WorkloadSpec& spec, const OpenModel& m, double run_seconds) const;
  std::string row_name(const OpenModel& m, std::string_view workload) const;
  ordered_json context(const OpenModel& m, const Machine& machine) const;

  Status write_layers(Work& work, OpenModel& m) const;
  Status write_scores(const OpenModel& m, const std::vector<ordered_json>& cases) const;
  Status write_results(const OpenModel& m, const Machine& machine, const Outcome& outcome) const;
};

/// "workload/vlr/bf16/8b/text100", as bench/reference_gpu.py has it.
std::string BenchCommand::row_name(const OpenModel& m, std::string_view workload) const {
  const std::string_view quant = quant_name(m.model().modes);
  return fmt::format("workload/{}/{}/{}/{}", model.options.exact ? "vlr" : "vlr_fast",
                     quant == "none" ? dtype_name(m.runner().dtype()) : quant, m.name, workload);
}

int BenchCommand::num_runs(const WorkloadSpec& spec, const OpenModel& m, double run_seconds) const {
  if (repeat > 0) return repeat;
  const int least = !m.device().is_gpu()                                        ? 3
                    : spec.tokens() <= m.runner().score().recordings.max_tokens ? 50
                                                                                : 5;
  return std::clamp(static_cast<int>(kTimingSeconds / run_seconds), least, 200);
}

/// Runs a workload until its time is known, then once more with every node timed.
Result<WorkloadResult> BenchCommand::measure(Work& work, OpenModel& m, const Machine& machine,
                                             std::vector<ordered_json>& cases) const {
  VLR_RETURN_IF_ERROR(work.fits());
  MemoryBudget& budget = m.device().budget();
  budget.reset_peak();
  const WorkloadSpec& spec = work.spec();
  WorkloadResult out{.name = row_name(m, spec.name),
                     .spec = spec,
                     .flops = model_flops(spec, m.model().config),
                     .peak = machine.peak,
                     .on_gpu = m.device().is_gpu()};
  ClockedRuns runs(work);
  VLR_ASSIGN_OR_RETURN(const double run_seconds, warm_up(runs, out.on_gpu));
  VLR_RETURN_IF_ERROR(time_runs(num_runs(spec, m, run_seconds), runs, m, machine, out));
  VLR_RETURN_IF_ERROR(time_nodes(runs, m, out));
  out.memory = budget.parts();
  out.same_bits = runs.same_bits();
  out.finite = std::ranges::all_of(runs.log_odds(), [](float v) { return std::isfinite(v); });
  if (!scores_to.empty()) add_cases(work, runs.log_odds(), cases);
  print(out);
  if (!out.finite) tell("vlr: {}: a score is not finite\n", out.name);
  if (!out.same_bits && model.options.exact)
    tell("vlr: {}: scores differ from run to run\n", out.name);
  return out;
}

/// The residual stream behind every layer of one run, f32, one after the other.
Status BenchCommand::write_layers(Work& work, OpenModel& m) const {
  std::ofstream file(layers_to, std::ios::binary);
  const ObserverScope watched(
      m.runner().passes(),
      {.on_value =
           [&](std::string_view, std::span<const int64_t> shape, const float* data) {
             int64_t count = 1;
             for (const int64_t dim : shape) count *= dim;
             file.write(reinterpret_cast<const char*>(data), count * int64_t{sizeof(float)});
           },
       .wants_value = [](std::string_view name) { return name.ends_with(".mlp.residual"); },
       .on_node = {}});
  VLR_RETURN_IF_ERROR(work.run().error());
  file.close();
  return file ? Status() : Status(Code::kInvalidArgument, layers_to + ": cannot write");
}

/// Mean distance of each layer's quantised weights, by the layer's name.
ordered_json distances_json(const std::vector<WeightDistance>& distances) {
  std::map<std::string, std::pair<double, int>> layers;
  for (const WeightDistance& d : distances) {
    const std::string name = canonical_name(d.source);
    size_t end = 0;  // up to the layer's number
    while (end < name.size() && (name[end] < '0' || name[end] > '9')) ++end;
    while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
    auto& [sum, count] = layers[name.substr(0, end)];
    sum += d.distance;
    ++count;
  }
  ordered_json out = ordered_json::object();
  for (const auto& [name, mean] : layers) out[name] = mean.first / mean.second;
  return out;
}

ordered_json BenchCommand::context(const OpenModel& m, const Machine& machine) const {
  ordered_json c = machine.context;
  const Options& o = model.options;
  c["executable"] = "vlr bench";
  c["commit"] = commit.empty() ? "unknown" : commit;
  c["device"] = m.device().name();
  c["model"] = m.name;
  c["weights"] = synthetic.empty() ? model.model : "synthetic";
  c["dtype"] = dtype_name(m.runner().dtype());
  c["quant"] = quant_name(m.model().modes);
  c["quant_rules"] = o.quant_rules;
  c["host_embeddings"] = o.host_embeddings;
  c["device_map"] = o.device_map;
  c["check_seconds"] = m.model().check_seconds;
  if (!m.model().distances.empty()) c["weight_distances"] = distances_json(m.model().distances);
  c["mode"] = o.exact ? "exact" : "fast";
  c["graphs"] = o.record_small_batches;
  c["measured"] = o.measure_kernels;
  c["no_fuse"] = o.no_fuse;
  c["impls"] = o.impls;
  c["load_seconds"] = m.load_seconds;
  c["measure_seconds"] = m.measure_seconds;
  c["batch_tokens"] = m.limits().tokens;
  c["batch_patches"] = m.limits().patches;
  const Placement& placement = m.model().placed.placement;
  c["row_chunk"] = placement.row_chunk;
  c["streamed_layers"] = placement.streamed_layers;
  c["streamed_vision"] = placement.stream_vision;
  c["by_matrix"] = placement.by_matrix;
  c["streamed_bytes"] = m.model().placed.weights.streamed;
  c["memory_cap_bytes"] = m.device().budget().cap();
  return c;
}

/// What is wrong with the model's options, before anything takes time.
Status BenchCommand::check_model() const {
  VLR_ASSIGN_OR_RETURN(const DeviceSpec spec, DeviceSpec::parse(model.options.device));
  if (!synthetic.empty() && spec.kind == Device::kCpu) {
    return {Code::kUnimplemented,
            "--synthetic makes its weights on a GPU; for the CPU, write a checkpoint with vlr "
            "checkpoint and give its folder with -m"};
  }
  if (synthetic.empty() && !fs::exists(fs::path(model.model) / "config.json"))
    return {Code::kNotFound, model.model + ": no config.json there"};
  return {};
}

/// Opens the model with its files in the page cache and, before that, without; each time after
/// reading the files alone.
Result<ordered_json> BenchCommand::measure_load() {
  const std::string& folder = model.model;
  if (!synthetic.empty())
    return {Code::kInvalidArgument, "--load: a synthetic model has no files, give -m"};
  VLR_RETURN_IF_ERROR(check_model());
  Options options = model.options;
  options.measure_kernels = options.self_check = false;
  VLR_ASSIGN_OR_RETURN(const Machine machine, Machine::open(options, false));
  ordered_json out = {{"context", machine.context}};
  out["context"]["commit"] = commit.empty() ? "unknown" : commit;
  out["context"]["model"] = folder;
  out["context"]["threads"] = read.threads();
  const auto measure_one = [&](const char* name, const auto& prepare) -> Status {
    // Files, model, model, files: what one leaves in somebody's cache is no advantage of the other.
    for (const bool whole_files : {true, false, false, true}) {
      VLR_RETURN_IF_ERROR(prepare());
      if (whole_files) {
        VLR_ASSIGN_OR_RETURN(const ReadStats raw, read_whole_files(folder, read));
        out[name]["files"].push_back(to_json(raw));
        continue;
      }
      VLR_ASSIGN_OR_RETURN(const auto opened, OpenModel::open(folder, "", options, read));
      out["context"]["device"] = opened->device().name();
      ordered_json loaded = to_json(opened->model().read);
      loaded["open_seconds"] = opened->load_seconds;
      out[name]["load"].push_back(std::move(loaded));
    }
    return {};
  };
  if (drop_cache)
    VLR_RETURN_IF_ERROR(measure_one("cold", [&] { return drop_from_page_cache(folder); }));
  VLR_RETURN_IF_ERROR(measure_one("page_cache", [&] {
    return read_whole_files(folder, {.path = ReadPath::kPageCache}).error();
  }));
  return out;
}

Result<std::unique_ptr<OpenModel>> BenchCommand::open_model() {
  model.options.on_progress = load_progress_bar();
  auto opened = OpenModel::open(model.model, synthetic, model.options, read);
  if (model.options.on_progress) clear_progress_line();
  return opened;
}

void BenchCommand::print_model(const OpenModel& m, const Machine& machine) const {
  fmt::print("{}{}, {}, {}, on {}\n", m.name, synthetic.empty() ? "" : " (synthetic)",
             dtype_name(m.runner().dtype()), model.options.exact ? "exact" : "fast",
             m.device().name());
  fmt::print(
      "loaded in {:.2f} s, kernels measured in {:.2f} s, batches of up to {} tokens and {} "
      "patches\n",
      m.load_seconds, m.measure_seconds, m.limits().tokens, m.limits().patches);
  if (peaks) fmt::print("{}\n", machine.describe_peak());
  std::fflush(stdout);
}

Status BenchCommand::run_workloads(OpenModel& m, const Machine& machine, Outcome& out) {
  const std::span<const std::string> all = workload_names();
  if (workloads.empty()) workloads.assign(all.begin(), all.end());
  for (const std::string& chosen : workloads) {
    for (const WorkloadSpec& spec : workloads_of(chosen, model.options.share_prefix))
      VLR_RETURN_IF_ERROR(run_workload(spec, m, machine, out));
  }
  return {};
}

Status BenchCommand::run_workload(const WorkloadSpec& spec, OpenModel& m, const Machine& machine,
                                  Outcome& out) {
  if (spec.images && !m.model().config.vision_config) {
    out.skipped.push_back(row_name(m, spec.name) + " (no vision tower)");
    return {};
  }
  auto work = Work::create(spec, m.model().config, m.runner(), m.limits());
  auto result = work ? measure(*work, m, machine, out.cases) : Result<WorkloadResult>(work.error());
  if (result && !layers_to.empty()) VLR_RETURN_IF_ERROR(write_layers(*work, m));
  std::fflush(stdout);
  if (result) {
    out.results.push_back(*std::move(result));
    return {};
  }
  const Status& error = result.error();
  fmt::print("\n{}: {}\n", spec.name, error.message());
  out.skipped.push_back(fmt::format("{} ({})", row_name(m, spec.name), error.message()));
  if (error.code() != Code::kOutOfMemory) out.code = fail(error);
  return {};
}

Status BenchCommand::write_scores(const OpenModel& m,
                                  const std::vector<ordered_json>& cases) const {
  const ordered_json out = {{"model", m.name},
                            {"dtype", dtype_name(m.runner().dtype())},
                            {"mode", model.options.exact ? "exact" : "fast"},
                            {"cases", cases}};
  return write_line(scores_to, out.dump());
}

Status BenchCommand::write_results(const OpenModel& m, const Machine& machine,
                                   const Outcome& outcome) const {
  ordered_json rows = ordered_json::array();
  for (const WorkloadResult& r : outcome.results) rows.push_back(to_json(r));
  ordered_json out = {{"context", context(m, machine)}, {"benchmarks", std::move(rows)}};
  if (!outcome.skipped.empty()) out["context"]["skipped"] = outcome.skipped;
#if VLR_WITH_CUDA
  if (m.device().is_gpu()) {
    ordered_json& chosen = out["context"]["cublaslt_algorithms"] = ordered_json::array();
    std::istringstream lines(m.device().context().blas->describe());
    for (std::string line; std::getline(lines, line);) chosen.push_back(line);
  }
#endif
  return write_line(json_to, out.dump(1));
}

int BenchCommand::run() {
  if (const Status s = model.finish(); !s.ok()) return fail(s);
  if (load) {
    const auto times = measure_load();
    if (!times) return fail(times.error());
    fmt::print("{}\n", times->dump(1));
    return kServed;
  }
  // The longest workload is a batch of its own, as a user of such documents would have it.
  model.options.max_length = 32768;
  if (const Status ok = check_model(); !ok.ok()) return fail(ok);
  const auto machine = Machine::open(model.options, peaks);
  if (!machine) return fail(machine.error());
  const auto opened = open_model();
  if (!opened) return fail(opened.error());
  OpenModel& m = **opened;
  print_model(m, *machine);

  Outcome outcome;
  if (const Status s = run_workloads(m, *machine, outcome); !s.ok()) return fail(s);
  print_table(outcome.results);
  for (const std::string& s : outcome.skipped) fmt::print("left out: {}\n", s);
  if (!scores_to.empty()) {
    if (const Status s = write_scores(m, outcome.cases); !s.ok()) return fail(s);
  }
  if (!json_to.empty()) {
    if (const Status s = write_results(m, *machine, outcome); !s.ok()) return fail(s);
  }
  return outcome.code;
}

}  // namespace

void add_bench(CLI::App& app, Run& run) {
  auto command = std::make_shared<BenchCommand>();
  CLI::Option_group* which = app.add_option_group("Which model", "One of these");
  which->add_option("-m,--model", command->model.model,
                    "Checkpoint folder: config.json and safetensors are enough");
  which
      ->add_option("--synthetic", command->synthetic,
                   "2b | 8b: a model of that size; a | b: small ones; made on a GPU")
      ->check(CLI::IsMember({"2b", "8b", "a", "b"}));
  which->require_option(1);
  const std::span<const std::string> names = workload_names();
  app.add_option("--workload", command->workloads,
                 fmt::format("{} (repeatable); all by default", fmt::join(names, " | ")))
      ->allow_extra_args(false)
      ->check(CLI::IsMember(std::vector<std::string>(names.begin(), names.end())));
  app.add_option("--repeat", command->repeat, "Timed runs of a workload; 0: about 1.5 seconds")
      ->transform(whole_number(0))
      ->capture_default_str();
  app.add_option("--json", command->json_to, "Write results, times and context as JSON too");
  app.add_option(
      "--scores", command->scores_to,
      "Write token ids and log-odds of every pair as JSON, for bench/reference_scores.py");
  app.add_option("--layers", command->layers_to,
                 "Write the residual stream behind every layer of the last workload, f32, for "
                 "bench/layer_distances.py");
  app.add_option("--commit", command->commit, "For the JSON's context");
  app.add_flag_callback(
      "--no-peaks", [command] { command->peaks = false; },
      "Do not measure what the machine can do at most");
  CLI::Option* const load = app.add_flag(
      "--load", command->load, "How fast the model is loaded, and its files read, as JSON instead");
  app.add_flag("--drop-cache", command->drop_cache,
               "With --load: first with files that are not in the page cache")
      ->needs(load);
  app.add_option_function<std::string>(
         "--read-path",
         [command](const std::string& name) {
           command->read.path = name == "cache"    ? ReadPath::kPageCache
                                : name == "direct" ? ReadPath::kDirect
                                                   : ReadPath::kAuto;
         },
         "How files are read: auto, cache (through the page cache) or direct (past it)")
      ->type_name("NAME")
      ->default_str("auto")
      ->check(CLI::Validator(CLI::IsMember({"auto", "cache", "direct"})).description(""));
  app.add_option("--read-threads", command->read.num_threads,
                 "Threads that read a checkpoint; 0: by the number of cores")
      ->transform(whole_number(0))
      ->capture_default_str();
  command->model.add_options_to(app, kRunsModel, kVisionCache);
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
