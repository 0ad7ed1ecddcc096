#include "tools/verdict.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "bench/support/lab.h"
#include "kernels/core/clock.h"
#include "tools/evaluation.h"
#include "tools/lab_report.h"
#include "tools/open_model.h"

namespace vlr::tools {
namespace {

using bench::Interval;
using bench::Json;
using bench::Verdict;

/// How often run() ran which implementation of an op, while it lives.
class RunCounts {
 public:
  explicit RunCounts(std::string_view op) {
    ops::run_observer = [this, op](std::string_view name, std::string_view impl, const void*) {
      if (name == op) ++counts_[std::string(impl)];
    };
  }
  ~RunCounts() { ops::run_observer = nullptr; }
  RunCounts(const RunCounts&) = delete;
  RunCounts& operator=(const RunCounts&) = delete;
  Json json() const { return counts_.empty() ? Json::object() : Json(counts_); }
  int64_t of(const std::string& impl) const {
    const auto it = counts_.find(impl);
    return it == counts_.end() ? 0 : it->second;
  }

 private:
  std::map<std::string, int64_t> counts_;
};

/// How far a candidate moved log-odds, of everything that was scored.
struct Moved {
  double farthest = 0;
  std::string at;  ///< where that was
  double squares = 0;
  int64_t count = 0;

  /// Of one score; its distance.
  double add(float baseline, float candidate, const std::string& where) {
    const double b = static_cast<double>(baseline);
    double distance = std::fabs(b - static_cast<double>(candidate));
    if (std::isnan(distance)) distance = INFINITY;  // no number is as far as can be
    squares += b * b;
    ++count;
    if (distance > farthest) {
      farthest = distance;
      at = where;
    }
    return distance;
  }
  /// The farthest by the RMS of the baseline's: how far apart scores are is a model's own.
  double share() const {
    return farthest > 0 ? farthest / std::sqrt(squares / static_cast<double>(count)) : 0;
  }
};

struct VerdictCommand {
  bench::LabOptions lab;
  ModelOptions model;
  std::string impl, against, synthetic, json_to, html_to;
  std::vector<std::string> workloads, eval_files;
  std::optional<double> most_moved;  ///< Moved::share(); none: what the device's precision explains
  const std::vector<bench::OpLab>* ops = nullptr;

  int run();

 private:
  Status finish();
  /// The stages. What they find is in `out`, whatever becomes of the next one.
  Status check_op(bench::Machine& machine);
  Status time_op(bench::Machine& machine);
  Status time_models();
  Status evaluate();
  void judge_scores(bool gpu);
  /// The model's options with this implementation of the op.
  Options with(const std::string& implementation) const;
  void refuse(std::string why) { out["refused"].push_back(std::move(why)); }
  /// A model that does not open because the candidate does not take what it would run; the baseline's has.
  template <class T>
  Result<T> opened_for_candidate(Result<T> result) {
    const bool is_refusal = !result.ok() && result.error().code() == Code::kUnimplemented;
    return is_refusal ? of_candidate("the model", std::move(result)) : std::move(result);
  }
  /// What fails where the candidate runs is a reason, too.
  template <class T>
  Result<T> of_candidate(const std::string& where, Result<T> result) {
    if (!result.ok()) refuse(where + ": " + result.error().message());
    return result;
  }

  const bench::OpLab* op = nullptr;
  std::string candidate;
  std::vector<bench::Shape> shapes;         ///< the models', or those that are asked for
  std::vector<Verdict> verdicts, in_model;  ///< of the op's shapes, of workloads
  Moved moved;
  Json out;
};

Status VerdictCommand::finish() {
  const size_t equals = impl.find('=');
  if (equals == std::string::npos)
    return {Code::kInvalidArgument, "--impl must be op=implementation, got " + impl};
  const std::string name = impl.substr(0, equals);
  candidate = impl.substr(equals + 1);
  for (const bench::OpLab& o : *ops) {
    if (o.name == name) op = &o;
  }
  if (!op)
    return {Code::kInvalidArgument, "there is no op '" + name + "'; `vlr lab list` has them"};
  VLR_RETURN_IF_ERROR(bench::load_all(lab, *ops));
  lab.ops = {op};
  VLR_RETURN_IF_ERROR(model.finish());
  model.options.device = lab.device.empty() ? model.options.device : lab.device;
  if (!eval_files.empty() && model.model.empty())
    return {Code::kInvalidArgument, "--eval wants a checkpoint with a tokenizer: -m"};
  if (!workloads.empty() && model.model.empty() && synthetic.empty())
    return {Code::kInvalidArgument, "--workload wants a model: -m or --synthetic"};
  if (workloads.empty()) workloads = {"1x128", "text100"};
  for (const std::string& workload : workloads) {
    if (!std::ranges::count(workload_names(), workload))
      return {Code::kInvalidArgument, fmt::format("--workload must be one of {}, got {}",
                                                  fmt::join(workload_names(), ", "), workload)};
  }
  return {};
}

/// Sizes around those of vectors, warps and tiles, and more rows than any of them.
std::vector<bench::Shape> check_shapes(const bench::OpLab& op,
                                       std::span<const bench::Shape> models) {
  constexpr double kMostRows = 1000;
  std::vector<bench::Shape> out;
  std::map<std::string, int> kinds;  // of dtype and words, two model shapes each
  for (const bench::Shape& s : models) {
    std::string kind(dtype_name(s.dtype));
    for (const auto& v : s.values()) {
      if (!v.axis.names.empty()) kind += fmt::format("/{}{}", v.axis.name, v.values[0]);
    }
    if (++kinds[kind] > 2) continue;
    for (const int64_t rows : {1, 2, 7, 33, 64, 129, 500, static_cast<int>(kMostRows)}) {
      bench::Shape t = s;
      t.label = "";
      if (!t.set(op.axes[0].name, {rows}).ok()) continue;
      out.push_back(std::move(t));
    }
  }
  return out;
}

Status VerdictCommand::check_op(bench::Machine& machine) {
  std::vector<bench::Shape> all =
      lab.shapes.empty() ? check_shapes(*op, shapes) : std::vector<bench::Shape>();
  all.insert(all.end(), shapes.begin(), shapes.end());
  // The launches are shared among the shapes, but a hundred each, since a race may be of one of them.
  const int64_t soak =
      std::max(std::min<int64_t>(lab.soak, 100), lab.soak / std::max<int64_t>(1, std::ssize(all)));
  int64_t taken = 0, skipped = 0;
  for (const bench::Shape& shape : all) {
    bench::Placement one;
    one.warm = true;
    auto subject = op->make(machine, shape, one);
    if (!subject.ok()) continue;  // not every number of rows is every op's
    if ((*subject)->is_empty()) {
      ++skipped;
      out["checks"].push_back(bench::skipped_json(*op, **subject));
      continue;
    }
    if (!std::ranges::count((*subject)->takers(), candidate)) continue;
    const bench::Checked c = bench::check(**subject, candidate, soak);
    ++taken;
    Json row = bench::checked_json(c, shape);
    if (c.wrong()) {
      refuse(fmt::format("{}: {}", shape.name(),
                         !c.error.empty() ? c.error
                         : c.errors.wrong > 0
                             ? fmt::format("{} of {} elements are wrong: {}", c.errors.wrong,
                                           c.errors.elements, c.errors.worst_at)
                             : c.bits.message()));
    }
    out["checks"].push_back(std::move(row));
  }
  if (taken == 0 && skipped == 0)
    refuse(candidate + " takes none of the shapes: `vlr lab list` has the names");
  return {};
}

Status VerdictCommand::time_op(bench::Machine& machine) {
  VLR_ASSIGN_OR_RETURN(const bench::Placement place, bench::placement_of(lab, machine));
  for (const bench::Shape& shape : shapes) {
    VLR_ASSIGN_OR_RETURN(auto subject, op->make(machine, shape, place));
    if (subject->is_empty()) {
      fmt::print("{} {}: SKIPPED, {}\n", op->name, shape.name(), bench::why_skipped(*subject));
      continue;
    }
    const std::vector<std::string> takers = subject->takers();
    if (!std::ranges::count(takers, candidate)) continue;
    const std::string baseline = against.empty() ? takers[0] : against;
    const std::vector<std::string> both = {baseline, candidate};
    const bench::Measurement m =
        bench::measure(machine, *subject, op->unit(shape), both, lab.measure);
    for (const bench::Measured& row : m.rows) {
      Json json = bench::row_json(machine, *op, *subject, row);
      if (row.ratio && m.control)
        json["control"] = {m.control->value, m.control->low, m.control->high};
      if (!row.error.empty())
        refuse(fmt::format("{}: {}{}", shape.name(),
                           row.implementation == candidate ? "" : "the baseline: ", row.error));
      out["rows"].push_back(std::move(json));
    }
    if (m.rows[1].ratio) {
      verdicts.push_back(m.rows[1].verdict);
      const Interval& r = *m.rows[1].ratio;
      fmt::print("{} {}: {} against {} {:.4f} [{:.4f}, {:.4f}] {}\n", op->name, shape.name(),
                 candidate, baseline, r.value, r.low, r.high, verdict_name(m.rows[1].verdict));
      std::fflush(stdout);
    }
    if (!out.contains("baseline")) out["baseline"] = baseline;
  }
  return {};
}

Options VerdictCommand::with(const std::string& implementation) const {
  Options o = model.options;
  if (!implementation.empty()) o.impls[op->name] = implementation;
  return o;
}

/// Both models run each workload in turns, A B A' A' B A, where A' is the control.
Status VerdictCommand::time_models() {
  if (synthetic.empty() && model.model.empty()) return {};
  const auto open = [&](const std::string& implementation) {
    Options o = with(implementation);
    o.max_length = 32768;
    return OpenModel::open(model.model, synthetic, o, {});
  };
  VLR_ASSIGN_OR_RETURN(const auto a, open(against));
  VLR_ASSIGN_OR_RETURN(const auto b, opened_for_candidate(open(candidate)));
  for (const std::string& name : workloads) {
    for (const WorkloadSpec& spec : workloads_of(name, model.options.share_prefix)) {
      VLR_ASSIGN_OR_RETURN(Work work_a,
                           Work::create(spec, a->model().config, a->runner(), a->limits()));
      VLR_ASSIGN_OR_RETURN(Work work_b,
                           Work::create(spec, b->model().config, b->runner(), b->limits()));
      ClockedRuns runs_a(work_a), runs_b(work_b);
      const bool gpu = a->device().is_gpu();
      Json row = {{"name", spec.name}};
      {
        const RunCounts counts(op->name);
        VLR_RETURN_IF_ERROR(of_candidate(spec.name, runs_b.run()).error());
        row["ran"] = counts.json();
        if (counts.of(candidate) == 0)
          refuse(fmt::format("{}: no node of the model ran {}", spec.name, candidate));
      }
      VLR_RETURN_IF_ERROR(warm_up(runs_a, gpu).error());
      VLR_RETURN_IF_ERROR(of_candidate(spec.name, warm_up(runs_b, gpu)).error());
      std::vector<double> seconds_a, seconds_b, seconds_again;
      const double start = seconds_now();
      const auto begun = static_cast<size_t>(bench::kFewestSamples);
      while (seconds_a.size() < begun || (seconds_now() - start < 4 && seconds_a.size() < 200)) {
        double at[6];
        for (int i = 0; i < 6; ++i) {
          if (i == 1 || i == 4) {
            VLR_ASSIGN_OR_RETURN(at[i], of_candidate(spec.name, runs_b.run()));
          } else {
            VLR_ASSIGN_OR_RETURN(at[i], runs_a.run());
          }
        }
        seconds_a.push_back((at[0] + at[5]) / 2);
        seconds_b.push_back((at[1] + at[4]) / 2);
        seconds_again.push_back((at[2] + at[3]) / 2);
      }
      const Interval ratio = bench::ratio_interval(seconds_a, seconds_b);
      const Interval control = bench::ratio_interval(seconds_a, seconds_again);
      const Verdict verdict = bench::judge(ratio, control, lab.measure.margin);
      in_model.push_back(verdict);
      double distance = 0;
      bool finite = true;
      for (const float v : runs_b.log_odds()) finite = finite && std::isfinite(v);
      for (size_t i = 0; i < runs_a.log_odds().size(); ++i)
        distance =
            std::max(distance, moved.add(runs_a.log_odds()[i], runs_b.log_odds()[i], spec.name));
      row["baseline_ms"] = 1e3 * bench::median(seconds_a);
      row["candidate_ms"] = 1e3 * bench::median(seconds_b);
      row["ratio"] = {ratio.value, ratio.low, ratio.high};
      row["control"] = {control.value, control.low, control.high};
      row["verdict"] = verdict_name(verdict);
      row["runs"] = 2 * seconds_a.size();
      row["max_distance"] = distance;
      row["same_bits_each_run"] = runs_b.same_bits();
      if (!runs_b.same_bits()) refuse(spec.name + ": scores differ from run to run");
      if (!finite) refuse(spec.name + ": a score is not finite");
      fmt::print(
          "{}: {:.3f} ms against {:.3f} ms, {:.4f} [{:.4f}, {:.4f}] {}, control [{:.4f}, {:.4f}]; "
          "scores moved by at most {:.2g}; ran {}\n",
          spec.name, row["candidate_ms"].get<double>(), row["baseline_ms"].get<double>(),
          ratio.value, ratio.low, ratio.high, verdict_name(verdict), control.low, control.high,
          distance, bench::text_of(row["ran"], -1));
      std::fflush(stdout);
      out["workloads"].push_back(std::move(row));
    }
  }
  return {};
}

/// Both models score the evaluation sets; the candidate's also pair by pair.
Status VerdictCommand::evaluate() {
  if (eval_files.empty() || model.model.empty()) return {};
  VLR_ASSIGN_OR_RETURN(Reranker a, Reranker::open(model.model, with(against)));
  VLR_ASSIGN_OR_RETURN(Reranker b,
                       opened_for_candidate(Reranker::open(model.model, with(candidate))));
  Options alone = with(candidate);
  alone.share_prefix = false;
  alone.batch_tokens = 1;
  VLR_ASSIGN_OR_RETURN(Reranker c, opened_for_candidate(Reranker::open(model.model, alone)));
  int64_t pairs = 0, different = 0;
  for (const std::string& path : eval_files) {
    VLR_ASSIGN_OR_RETURN(const EvalFile set, read_eval(path, !model.options.media_root.empty()));
    Metrics of_a, of_b, of_c;
    VLR_ASSIGN_OR_RETURN(const auto from_a, score_eval(a, set, of_a));
    VLR_ASSIGN_OR_RETURN(const auto from_b, of_candidate(path, score_eval(b, set, of_b)));
    VLR_ASSIGN_OR_RETURN(const auto from_c, of_candidate(path, score_eval(c, set, of_c)));
    double farthest = 0, sum = 0;
    int64_t order_changes = 0, top1_changes = 0, count = 0;
    for (size_t i = 0; i < from_a.size(); ++i) {
      std::vector<double> scores_a, scores_b;
      for (size_t j = 0; j < from_a[i].results.size(); ++j) {
        const DocumentResult &x = from_a[i].results[j], &y = from_b[i].results[j],
                             &z = from_c[i].results[j];
        scores_a.push_back(x.scored() ? x.log_odds : -INFINITY);
        scores_b.push_back(y.scored() ? y.log_odds : -INFINITY);
        if (x.scored() != y.scored()) refuse(path + ": documents have other statuses");
        if (!x.scored() || !y.scored()) continue;
        if (!std::isfinite(y.log_odds)) refuse(path + ": a score is not finite");
        const double d = moved.add(x.log_odds, y.log_odds, path);
        farthest = std::max(farthest, d);
        sum += d;
        ++count;
        ++pairs;
        different += std::memcmp(&y.log_odds, &z.log_odds, sizeof y.log_odds) != 0;
      }
      const auto order_a = ranking(scores_a), order_b = ranking(scores_b);
      order_changes += order_a != order_b;
      top1_changes += !order_a.empty() && order_a[0] != order_b[0];
    }
    fmt::print("{}: scores moved by at most {:.2g}, {} orders changed\n", path, farthest,
               order_changes);
    out["eval"].push_back({{"file", path},
                           {"pairs", count},
                           {"max_distance", farthest},
                           {"mean_distance", count > 0 ? sum / static_cast<double>(count) : 0},
                           {"order_changes", order_changes},
                           {"top1_changes", top1_changes},
                           {"baseline_max_distance_from_expected", of_a.max_distance},
                           {"candidate_max_distance_from_expected", of_b.max_distance}});
  }
  out["batches"] = {{"pairs", pairs}, {"different", different}};
  fmt::print("of {} pairs {} have other bits alone than in batches\n", pairs, different);
  if (different > 0)
    refuse(fmt::format("{} of {} pairs have other bits alone than in batches", different, pairs));
  return {};
}

/// A candidate that is right at the op's shapes may be wrong at the model's.
void VerdictCommand::judge_scores(bool gpu) {
  // Two programs in bf16, vlr and transformers, differ by at most 0.08 (bench/results/h200_scores_8b.json),
  // two implementations in f32 by some 1e-6.
  const double most = most_moved.value_or(gpu ? 0.1 : 0.001), share = moved.share();
  if (moved.count == 0) return;
  out["moved"] = {{"max_distance", moved.farthest}, {"share", share}, {"most", most}};
  fmt::print("scores moved by at most {:.2g} of their RMS; {:.2g} is allowed\n", share, most);
  if (!(share <= most))
    refuse(fmt::format("{}: a score moved by {:.3g}, {:.2g} of their RMS, and {:.2g} is allowed",
                       moved.at, moved.farthest, share, most));
}

int VerdictCommand::run() {
  const auto unusable = [](const Status& s) {
    fail(s);
    return s.code() == Code::kInvalidArgument ? bench::kUsage : bench::kWrong;
  };
  if (const Status s = finish(); !s.ok()) return unusable(s);
  auto machine = bench::Machine::open(lab.device, lab.num_threads);
  if (!machine.ok()) return unusable(machine.error());
  if (!synthetic.empty() && !(*machine)->is_gpu())
    return unusable({Code::kInvalidArgument, "--synthetic wants a GPU, and this runs on cpu"});
  std::vector<std::string> names = {candidate};
  if (!against.empty()) names.push_back(against);
  for (const std::string& name : names) {
    const Status s = bench::expect_implementation(lab.ops, name, (*machine)->device());
    if (!s.ok()) return unusable(s);
  }
  auto asked = bench::shapes_of(*op, lab, (*machine)->device());
  if (!asked.ok()) return unusable(asked.error());
  shapes = *std::move(asked);
  for (const bench::Shape& shape : lab.shapes.empty() ? std::vector<bench::Shape>() : shapes) {
    bench::Placement one;
    one.warm = true;
    const auto subject = op->make(**machine, shape, one);
    if (!subject.ok()) return unusable(subject.error().with_context(op->name + " " + shape.name()));
  }
  for (const std::string& path : {json_to, html_to}) {
    if (const Status s = bench::can_write(path); !s.ok()) return unusable(s);
  }
  out = {
      {"context", bench::context_json(**machine, lab)}, {"op", op->name}, {"candidate", candidate}};
  out["refused"] = Json::array();
  Status failed = check_op(**machine);
  if (failed.ok()) failed = time_op(**machine);
  if (failed.ok()) failed = (*machine)->roofs.measure_again();
  out["roofs"] = bench::roofs_json((*machine)->roofs);
  const bool gpu = (*machine)->is_gpu();
  machine->reset();  // its threads are pinned where the models' are to run
  // What is wrong by itself is not tried on a model.
  if (failed.ok() && out["refused"].empty()) failed = time_models();
  if (failed.ok() && out["refused"].empty()) failed = evaluate();
  judge_scores(gpu);

  const bench::ExitCode code = !out["refused"].empty() ? bench::kWrong
                               : !failed.ok()          ? bench::kUnfinished
                                                       : bench::exit_code(verdicts, in_model);
  const std::string word = code == bench::kWrong        ? "REFUSED"
                           : code == bench::kUnfinished ? "UNFINISHED"
                           : code == bench::kFine       ? "FASTER"
                           : code == bench::kSame       ? "SAME"
                           : code == bench::kSlower     ? "SLOWER"
                                                        : "UNDECIDED";
  out["verdict"] = word;
  if (!failed.ok()) {
    fail(failed);
    out["error"] = failed.message();
  }
  for (const Json& why : out["refused"]) fmt::print("refused: {}\n", why.get<std::string>());
  fmt::print("{}={}: {}\n", op->name, candidate, word);
  if (!json_to.empty()) {
    if (const Status s = bench::write_whole(json_to, bench::text_of(out) + "\n"); !s.ok())
      return fail(s);
  }
  if (!html_to.empty()) {
    if (const Status s = bench::write_whole(html_to, html_verdict(out) + "\n"); !s.ok())
      return fail(s);
  }
  return code;
}

}  // namespace

void add_verdict(CLI::App& app, const std::vector<bench::OpLab>& ops, Run& run) {
  auto c = std::make_shared<VerdictCommand>();
  c->ops = &ops;
  c->lab.soak = 2000;
  c->lab.measure.alone = c->lab.measure.burst = false;
  app.add_option("--impl", c->impl, "op=implementation: what is judged")->required();
  app.add_option("--against", c->against,
                 "The implementation it is compared with; the default one");
  app.add_option("--device", c->lab.device, "cpu, cuda or cuda:N; a GPU where there is one");
  app.add_option("--load", c->lab.plugins, "A shared object with implementations")
      ->expected(1, 100)
      ->type_size(1);
  app.add_option("--cu", c->lab.cu_files, "A .cu file with one kernel")
      ->expected(1, 100)
      ->type_size(1);
  app.add_option("--dtype", c->lab.dtype, "Of the activations: f32, bf16 or f16");
  CLI::Option* label =
      app.add_option("--label", c->lab.label, "Only the models' shapes with this in their names");
  app.add_option("--shape", c->lab.shapes, "Instead of the models' shapes: `vlr lab list` has axes")
      ->expected(1, 1000)
      ->type_size(1)
      ->excludes(label);
  app.add_option("--soak", c->lab.soak, "Launches that must have the same bits, in all shapes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--settle", c->lab.measure.settle, "Seconds of full duty before samples are taken")
      ->check(bench::finite_number())
      ->capture_default_str();
  app.add_option("--seconds", c->lab.measure.seconds, "Of samples a shape, at most")
      ->check(bench::finite_number())
      ->capture_default_str();
  app.add_option("--margin", c->lab.measure.margin, "Times that differ by less are the same")
      ->check(bench::finite_number())
      ->capture_default_str();
  CLI::Option* folder = app.add_option("-m,--model", c->model.model,
                                       "A checkpoint to run both in; none: the op alone");
  app.add_option("--synthetic", c->synthetic, "2b, 8b, a or b: a model of that size, on a GPU")
      ->check(CLI::IsMember({"2b", "8b", "a", "b"}))
      ->excludes(folder);
  app.add_option(
         "--workload", c->workloads,
         fmt::format("{}; 1x128 and text100 by default", fmt::join(workload_names(), " | ")))
      ->expected(1, 100)
      ->type_size(1);
  app.add_option("--eval", c->eval_files, "JSON lines with known answers, as `vlr eval` takes")
      ->expected(1, 100)
      ->type_size(1);
  app.add_option(
         "--moved", c->most_moved,
         "A log-odds may move by so much, by the RMS of the baseline's; 0.1 on a GPU, 0.001 on "
         "the host")
      ->check(bench::finite_number());
  app.add_option("--commit", c->lab.commit, "For the result's context; else VLR_COMMIT");
  app.add_option("--json", c->json_to, "Write everything there");
  app.add_option("--html", c->html_to, "And as one page there");
  app.callback([c, &run] { run = [c] { return c->run(); }; });
}

}  // namespace vlr::tools
