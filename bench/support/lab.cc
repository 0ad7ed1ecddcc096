#include "bench/support/lab.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <set>

#include "bench/support/plugin.h"
#include "kernels/core/clock.h"
#include "kernels/core/text.h"

namespace vlr::bench {
namespace {

int fail(const Status& s) {
  fmt::print(stderr, "{}\n", s.message());
  return s.code() == Code::kInvalidArgument ? kUsage : kWrong;
}

/// "12.3 us ±0.2%"
std::string time_text(const Interval& seconds) {
  const double us = seconds.value * 1e6;
  return fmt::format("{:.{}f}", us,
                     us < 100     ? 2
                     : us < 10000 ? 1
                                  : 0) +
         fmt::format(" ±{:.1f}%", 100 * seconds.spread());
}

std::string interval_text(const Interval& v) {
  return fmt::format("{:.4f} [{:.4f}, {:.4f}]", v.value, v.low, v.high);
}

/// What binds, and how near to it.
struct RoofShare {
  double share = 0;
  const Roof* roof = nullptr;
};
Result<RoofShare> roof_share(Machine& machine, const OpLab& op, const Subject& subject,
                             double seconds) {
  const Cost cost = subject.cost();
  VLR_ASSIGN_OR_RETURN(const Roof* flops, machine.roofs.flops(op.unit(subject.shape())));
  VLR_ASSIGN_OR_RETURN(const Roof* bytes,
                       machine.roofs.bytes(subject.bytes(), subject.num_sets() == 1));
  const double by_flops = flops->best() > 0 ? cost.flops / flops->best() : 0;
  const double by_bytes = bytes->best() > 0 ? cost.bytes / bytes->best() : 0;
  return by_flops > by_bytes ? RoofShare{by_flops / seconds, flops}
                             : RoofShare{by_bytes / seconds, bytes};
}

Json interval_json(const Interval& v) { return {v.value, v.low, v.high}; }

void print_row(Machine& machine, const OpLab& op, const Subject& subject, const Measured& row) {
  if (!row.error.empty()) {
    fmt::print("  {:18} FAILED: {}\n", row.implementation, row.error);
    return;
  }
  const Cost cost = subject.cost();
  const double s = row.seconds.value;
  std::string line = fmt::format("  {:18} {:>16} us", row.implementation, time_text(row.seconds));
  if (row.burst > 0) line += fmt::format("  burst {:.2f}", row.burst * 1e6);
  line +=
      fmt::format("  {:.4g} GFLOP/s  {:.4g} GB/s", cost.flops / s * 1e-9, cost.bytes / s * 1e-9);
  if (const auto share = roof_share(machine, op, subject, s); share.ok() && share->roof)
    line += fmt::format("  {:.1f}% of {}", 100 * share->share, share->roof->name);
  if (row.readings.mhz_mean > 0) line += fmt::format("  {} MHz", row.readings.mhz_mean);
  if (row.readings.watts > 0)  // of samples that take half a second
    line += fmt::format(" {:.0f} W {:.3g} GFLOP/J", row.readings.watts,
                        cost.flops / s / row.readings.watts * 1e-9);
  if (row.ratio)
    line += fmt::format("  {} {}", interval_text(*row.ratio), verdict_name(row.verdict));
  fmt::print("{}\n", line);
  for (const KernelCost& k : row.kernels) {
    fmt::print(
        "    {} x {} threads, {} registers, {} B local, {} B shared, {} blocks an SM ({:.0f}%)\n",
        k.blocks, k.threads, k.registers, k.local_bytes, k.shared_bytes, k.blocks_per_sm,
        100 * k.occupancy);
    if (k.sass)
      fmt::print(
          "      {} instructions: {} wgmma, {} mma, {} MUFU, {} local loads, {} local stores\n",
          k.sass->all, k.sass->wgmma, k.sass->mma, k.sass->mufu, k.sass->local_loads,
          k.sass->local_stores);
  }
}

void print_checked(const std::string& implementation, const Checked& c) {
  if (!c.error.empty()) {
    fmt::print("  {:18} FAILED: {}\n", implementation, c.error);
    return;
  }
  const Errors& e = c.errors;
  fmt::print("  {:18} {} of {} elements wrong; worst {:.3g} tolerances\n", implementation, e.wrong,
             e.elements, e.worst);
  fmt::print("    max {:.3g}, p99.9 {:.3g}, RMS {:.3g} of {:.3g}\n", e.max_abs, e.p999_abs, e.rms,
             e.reference_rms);
  std::vector<std::string> steps;
  for (size_t i = 0; i < e.ulps.size(); ++i) {
    if (e.ulps[i] == 0) continue;
    const std::string name = i + 1 == e.ulps.size() ? fmt::format("more than {}", 1 << (i - 2))
                             : i < 2                ? std::to_string(i)
                                                    : fmt::format("up to {}", 1 << (i - 1));
    steps.push_back(fmt::format("{}: {}", name, e.ulps[i]));
  }
  fmt::print("    steps of the dtype: {}\n", fmt::join(steps, ", "));
  if (!e.worst_at.empty()) fmt::print("    worst: {}\n", e.worst_at);
  fmt::print("    bits alone and in batches: {}{}\n", c.bits_word(),
             c.bits.ok() ? "" : ", " + c.bits.message());
}

Json errors_json(const Errors& e) {
  return {{"elements", e.elements},
          {"wrong", e.wrong},
          {"worst_tolerances", e.worst},
          {"max_abs", e.max_abs},
          {"p999_abs", e.p999_abs},
          {"rms", e.rms},
          {"reference_rms", e.reference_rms},
          {"ulps", e.ulps},
          {"worst_at", e.worst_at}};
}

Status write_json(const std::string& path, const Json& json) {
  return write_whole(path, text_of(json) + "\n");
}

/// Where a file is written before it is what it is called; itself, where that is a link, or no file
/// but a terminal.
std::string beside(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::symlink_status(path, error);
  return std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)
             ? path
             : path + fmt::format(".{}.part", getpid());
}

/// Opens what the options ask for and calls body with every subject, up to a shape that an op does
/// not take. Those without work are told, and get a row that says so.
Status for_each_subject(Machine& machine, const LabOptions& options, Json& rows,
                        const std::function<Status(const OpLab&, Subject&)>& body) {
  VLR_ASSIGN_OR_RETURN(const Placement place, placement_of(options, machine));
  for (const std::string& name : options.implementations)
    VLR_RETURN_IF_ERROR(expect_implementation(options.ops, name, machine.device()));
  std::vector<std::pair<const OpLab*, Shape>> all;
  std::map<const OpLab*, size_t> places;
  std::vector<size_t> place_of_op;  // of each of `all` among those of its op
  for (const OpLab* op : options.ops) {
    VLR_ASSIGN_OR_RETURN(std::vector<Shape> shapes, shapes_of(*op, options, machine.device()));
    for (Shape& shape : shapes) {
      place_of_op.push_back(places[op]++);
      all.emplace_back(op, std::move(shape));
    }
  }
  if (all.empty())
    return {Code::kInvalidArgument, "no shape of any op is asked for; `list` has them"};
  std::vector<size_t> order(all.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Every op's first shape, then every op's second one: what a budget leaves out is of all of them.
  if (options.budget > 0)
    std::ranges::stable_sort(order, {}, [&](size_t i) { return place_of_op[i]; });
  const double start = seconds_now();
  for (size_t n = 0; n < order.size(); ++n) {
    if (options.budget > 0 && seconds_now() - start > options.budget) {
      fmt::print("{} of {} shapes are left out: the budget is spent\n", order.size() - n,
                 order.size());
      break;
    }
    const auto& [op, shape] = all[order[n]];
    auto subject = op->make(machine, shape, place);
    if (!subject.ok()) return subject.error().with_context(op->name + " " + shape.name());
    if (const std::string why = why_skipped(**subject); !why.empty()) {
      fmt::print("{} {}\n  SKIPPED: {}\n", op->name, shape.name(), why);
      rows.push_back(skipped_json(*op, **subject));
      continue;
    }
    VLR_RETURN_IF_ERROR(body(*op, **subject));
  }
  return {};
}

bool has(const OpLab& op, const std::string& name, Device device) {
  const std::string own = name == "cublaslt_fast" ? "cublaslt" : name;
  return std::ranges::any_of(op.implementations(), [&](const OpLab::Implementation& impl) {
    return impl.device == device && impl.name == own;
  });
}

/// Those asked for, of several ops those that each has; else all that take it.
std::vector<std::string> chosen(const LabOptions& options, const OpLab& op, const Subject& subject,
                                Device device) {
  if (!options.implementations.empty()) {
    std::vector<std::string> asked = options.implementations;
    if (options.ops.size() > 1)
      std::erase_if(asked, [&](const std::string& name) { return !has(op, name, device); });
    return asked;
  }
  std::vector<std::string> all = subject.takers();
  // References are there to be right: where there is another one they are not timed.
  if (all.size() > 1) std::erase(all, "reference");
  return all;
}

/// What every command takes.
void add_common(CLI::App& app, const std::vector<OpLab>& ops, std::shared_ptr<LabOptions> o,
                std::shared_ptr<std::string> op) {
  if (ops.size() > 1)
    app.add_option("op", *op, "The op: `list` has them; all of them if none is named");
  app.add_option("--device", o->device, "cpu, cuda or cuda:N; a GPU where there is one");
  app.add_option("--threads", o->num_threads, "Of the host; one a CPU")
      ->check(CLI::NonNegativeNumber);
  CLI::Option* dtype = app.add_option("--dtype", o->dtype, "Of the activations: f32, bf16 or f16");
  CLI::Option* label =
      app.add_option("--label", o->label, "Only the models' shapes with this in their names");
  app.add_option("--shape", o->shapes, "rows=128:8192:*2,dim=4096; `list` has an op's axes")
      ->type_size(1)
      ->expected(1, 1000)
      ->excludes(label);
  app.add_option("--shapes", o->shapes_file, "Shapes that `vlr profile --shapes` wrote")
      ->excludes(label)
      ->excludes(dtype);  // each has its own
  app.add_option("--load", o->plugins,
                 "A shared object with implementations, kernels/core/plugin.h")
      ->expected(1, 100)
      ->type_size(1);
  app.add_option("--cu", o->cu_files, "A .cu file with one kernel, bench/support/cu_kernel.h")
      ->expected(1, 100)
      ->type_size(1);
}

/// What those take that run something.
void add_running(CLI::App& app, LabOptions& o) {
  app.add_option_function<std::string>(
      "--impl",
      [&o](const std::string& text) { o.implementations = CLI::detail::split(text, ','); },
      "Implementations, separated by commas");
  app.add_option("--budget", o.budget,
                 "Seconds after which no further shape is begun; 0: there is none")
      ->check(finite_number())
      ->capture_default_str();
}

/// What the command line leaves open.
Status finish(LabOptions& o, const std::vector<OpLab>& ops, const std::string& op) {
  o.ops.clear();
  for (const OpLab& one : ops) {
    if (ops.size() == 1 || op.empty() || one.name == op) o.ops.push_back(&one);
  }
  if (o.ops.empty())
    return {Code::kInvalidArgument, "there is no op '" + op + "'; `list` has them"};
  if (!o.shapes.empty() && o.ops.size() > 1)
    return {Code::kInvalidArgument, "--shape is one op's: name the op"};
  if (!o.warm_operands.empty() && o.ops.size() > 1)
    return {Code::kInvalidArgument, "--warm-operand is one op's: name the op"};
  VLR_RETURN_IF_ERROR(load_all(o, ops));
  if (const char* commit = std::getenv("VLR_COMMIT"); o.commit.empty() && commit) o.commit = commit;
  return {};
}

int run_list(const LabOptions& o) {
  auto machine = Machine::open(o.device, o.num_threads);
  if (!machine.ok()) return fail(machine.error());
  for (const OpLab* op : o.ops) {
    const auto shapes = shapes_of(*op, o, (*machine)->device());
    if (!shapes.ok()) return fail(shapes.error());
    fmt::print("{}\n", op->name);
    for (const Axis& a : op->axes)
      fmt::print(
          "  axis {} = {}{}{}\n", a.name,
          a.names.empty() ? std::to_string(a.value) : a.names.at(static_cast<size_t>(a.value)),
          a.what.empty() ? "" : "  " + a.what,
          a.names.empty() ? "" : fmt::format("  ({})", fmt::join(a.names, " | ")));
    for (const auto& impl : op->implementations())
      fmt::print("  {} {}\n", device_name(impl.device), impl.name);
    for (const Shape& s : *shapes)
      fmt::print("  shape {} --shape {}\n", s.dtype_and_label(), s.axes_text());
  }
  return kFine;
}

/// What acts on a GPU alone is not taken in silence elsewhere.
Status expect_gpu_for(const LabOptions& o, const Machine& machine) {
  const char* option = !o.cu_files.empty()     ? "--cu"
                       : o.measure.company > 0 ? "--company"
                       : o.measure.sass        ? "--sass"
                                               : nullptr;
  if (machine.is_gpu() || !option) return {};
  return {Code::kInvalidArgument, fmt::format("{} wants a GPU, and this runs on cpu", option)};
}

int run_check(const LabOptions& o, const std::string& json_path) {
  if (const Status s = can_write(json_path); !s.ok()) return fail(s);
  auto machine = Machine::open(o.device, o.num_threads);
  if (!machine.ok()) return fail(machine.error());
  if (const Status s = expect_gpu_for(o, **machine); !s.ok()) return fail(s);
  bool wrong = false;
  Json rows = Json::array();
  const Status s =
      for_each_subject(**machine, o, rows, [&](const OpLab& op, Subject& subject) -> Status {
        fmt::print("{} {}\n", op.name, subject.shape().name());
        for (const std::string& name : chosen(o, op, subject, (*machine)->device())) {
          const Checked c = check(subject, name, o.soak);
          wrong = wrong || c.wrong();
          Json row = checked_json(c, subject.shape());
          row["op"] = op.name;
          row["impl"] = name;
          rows.push_back(std::move(row));
          print_checked(name, c);
        }
        std::fflush(stdout);
        return {};
      });
  // What there is, whatever ended it.
  const Status w = write_json(json_path, {{"context", context_json(**machine, o)}, {"rows", rows}});
  if (!s.ok()) return fail(s);
  if (!w.ok()) return fail(w);
  return wrong ? kWrong : kFine;
}

int run_time(const LabOptions& o, const std::string& json_path, bool ab) {
  if (const Status s = can_write(json_path); !s.ok()) return fail(s);
  auto machine = Machine::open(o.device, o.num_threads);
  if (!machine.ok()) return fail(machine.error());
  if (const Status s = expect_gpu_for(o, **machine); !s.ok()) return fail(s);
  if (ab && o.implementations.size() > 2)
    return fail({Code::kInvalidArgument,
                 "ab wants two: --impl baseline,candidate; one is compared with itself"});
  std::unique_ptr<Rival> rival;
  if (!o.rival.empty()) {
    auto started = Rival::start(o.rival);
    if (!started.ok()) return fail(started.error());
    rival = std::move(started).value();
  }
  bool wrong = false;
  std::vector<Verdict> verdicts;
  Json rows = Json::array();
  const Status s = measure_all(**machine, o, rival.get(), rows,
                               [&](const OpLab& op, const Subject& subject, const Measurement& m) {
                                 fmt::print("{} {}\n", op.name, subject.shape().name());
                                 for (const Measured& row : m.rows) {
                                   wrong = wrong || !row.error.empty();
                                   if (o.measure.profile && row.error.empty()) {
                                     fmt::print("  {:18} launched once\n", row.implementation);
                                     continue;
                                   }
                                   print_row(**machine, op, subject, row);
                                   if (row.ratio) verdicts.push_back(row.verdict);
                                 }
                                 if (m.control)
                                   fmt::print("  control: {} against itself {}\n",
                                              m.rows[0].implementation, interval_text(*m.control));
                                 std::fflush(stdout);
                               });
  if (o.measure.profile) return !s.ok() ? fail(s) : wrong ? kWrong : kFine;
  const Status again = s.ok() ? (*machine)->roofs.measure_again() : Status();
  for (const auto& roof : (*machine)->roofs.all())
    fmt::print("roof {}: {:.4g} before, {:.4g} after, G{}\n", roof->name, roof->before * 1e-9,
               roof->after * 1e-9, roof->unit);
  Json context = context_json(**machine, o);
  if (rival) context["rival"] = rival->description();
  const Json all = {{"context", context}, {"roofs", roofs_json((*machine)->roofs)}, {"rows", rows}};
  // What there is, whatever ended it.
  const Status w = write_json(json_path, all);
  for (const Status& why : {s, again, w}) {
    if (!why.ok()) return fail(why);
  }
  if (wrong) return kWrong;
  return ab ? exit_code(verdicts) : kFine;
}

}  // namespace

Checked check(Subject& subject, const std::string& implementation, int64_t soak) {
  Checked out;
  const auto fails = [&](const Status& s) {
    if (!s.ok()) out.error = s.message();
    return !s.ok();
  };
  const Result<size_t> open = subject.open(implementation);
  if (fails(open.ok() ? Status() : open.error())) return out;
  // At the same addresses: answers that are remembered.
  for (const auto& [seed, contents] :
       {std::pair{1, Contents::kNormal}, {2, Contents::kNormal}, {3, Contents::kSpecial}}) {
    Result<Errors> errors = subject.errors(*open, static_cast<uint64_t>(seed), contents);
    if (fails(errors.ok() ? Status() : errors.error())) return out;
    if (contents == Contents::kSpecial && errors->wrong > 0)
      errors->worst_at += "; of operands with zeros and subnormals";
    if (seed == 1 || errors->wrong > out.errors.wrong) out.errors = *std::move(errors);
  }
  const bool promises = implementation != "cublaslt_fast" && implementation != "openblas";
  out.bits = !promises ? Status(Code::kUnimplemented, "it does not promise them")
                       : subject.same_bits(*open);
  if (soak > 0) fails(subject.soak(*open, soak));
  return out;
}

Json checked_json(const Checked& c, const Shape& shape) {
  Json out = {{"shape", shape.axes_text()},
              {"dtype", dtype_name(shape.dtype)},
              {"label", shape.label},
              {"name", shape.name()}};
  if (!c.error.empty()) out["error"] = c.error;
  if (c.errors.elements == 0) return out;
  out["errors"] = errors_json(c.errors);
  out["bits"] = c.bits_word();
  if (!c.bits.ok()) out["bits_message"] = c.bits.message();
  return out;
}

Status load_all(const LabOptions& o, const std::vector<OpLab>& ops) {
  for (const std::string& path : o.plugins) VLR_RETURN_IF_ERROR(load_plugin(path, ops));
  for (const std::string& path : o.cu_files) VLR_RETURN_IF_ERROR(load_cu(path, ops));
  return {};
}

CLI::Validator finite_number() {
  return {[](std::string& text) {
            char* end = nullptr;
            const double v = std::strtod(text.c_str(), &end);
            const bool good = !text.empty() && *end == '\0' && std::isfinite(v) && v >= 0;
            return good ? std::string() : "a number of 0 or more is wanted, got " + text;
          },
          ""};
}

ExitCode exit_code(std::span<const Verdict> verdicts, std::span<const Verdict> in_model) {
  const auto any = [&](Verdict v) { return std::ranges::find(verdicts, v) != verdicts.end(); };
  if (any(Verdict::kSlower)) return kSlower;
  if (any(Verdict::kUndecided) || verdicts.empty()) return kUndecided;
  if (!any(Verdict::kFaster)) return kSame;
  const bool contradicted = std::ranges::find(in_model, Verdict::kSlower) != in_model.end();
  return contradicted ? kUndecided : kFine;
}

Result<Placement> placement_of(const LabOptions& options, const Machine& machine) {
  Placement p;
  // What is named is warm beside others that are cold.
  p.warm = options.warm || (!machine.is_gpu() && !options.cold && options.warm_operands.empty());
  p.warm_operands = {options.warm_operands.begin(), options.warm_operands.end()};
  if (options.data == "normal") return p;
  if (!options.read_data)
    return Status(Code::kInvalidArgument,
                  "--data must be normal here; `vlr lab` reads checkpoints");
  VLR_ASSIGN_OR_RETURN(p.data, options.read_data(options.data));
  return p;
}

Status expect_implementation(std::span<const OpLab* const> ops, const std::string& name,
                             Device device) {
  std::set<std::string> names;
  for (const OpLab* op : ops) {
    if (has(*op, name, device)) return {};
    for (const auto& impl : op->implementations()) {
      if (impl.device == device) names.insert(impl.name);
    }
  }
  return {Code::kInvalidArgument, fmt::format("{}no implementation '{}' on {}; there are {}",
                                              ops.size() == 1 ? ops[0]->name + ": " : "", name,
                                              device_name(device), fmt::join(names, ", "))};
}

Result<std::vector<Shape>> shapes_of(const OpLab& op, const LabOptions& o, Device device) {
  VLR_ASSIGN_OR_RETURN(const DType dtype, parse_dtype(!o.dtype.empty()          ? o.dtype
                                                      : device == Device::kCuda ? "bf16"
                                                                                : "f32"));
  std::vector<Shape> out;
  for (const std::string& text : o.shapes) {
    VLR_ASSIGN_OR_RETURN(const auto shapes, parse_shapes(text, op.axes, dtype));
    out.insert(out.end(), shapes.begin(), shapes.end());
  }
  if (!o.shapes_file.empty()) {
    std::ifstream in(o.shapes_file);
    const Json all = Json::parse(in, nullptr, false);
    if (!all.is_array())
      return Status(Code::kInvalidArgument, o.shapes_file + ": expected an array of shapes");
    for (const Json& entry : all) {
      const auto is_text = [&](const char* key) {
        return entry.is_object() && entry.contains(key) && entry[key].is_string();
      };
      if (!is_text("op") || !is_text("dtype") || !is_text("shape"))
        return Status(
            Code::kInvalidArgument,
            o.shapes_file + ": a shape must have op, dtype and shape, got " + text_of(entry, -1));
      if (entry["op"] != op.name) continue;
      VLR_ASSIGN_OR_RETURN(const DType d, parse_dtype(entry["dtype"].get<std::string>()));
      VLR_ASSIGN_OR_RETURN(const auto shapes,
                           parse_shapes(entry["shape"].get<std::string>(), op.axes, d));
      out.insert(out.end(), shapes.begin(), shapes.end());
    }
    return out;
  }
  if (!out.empty()) return out;
  for (Shape& s : op.shapes(device)) {
    if (!o.dtype.empty() && s.dtype != dtype) continue;
    if (!o.label.empty() && s.label.find(o.label) == std::string::npos) continue;
    out.push_back(std::move(s));
  }
  if (out.empty() && o.ops.size() == 1)
    return Status(Code::kInvalidArgument,
                  op.name + ": none of its shapes is asked for; `list` has them");
  return out;
}

std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Status can_write(const std::string& path) {
  if (path.empty()) return {};
  const std::string to = beside(path);
  const bool can = std::ofstream(to, std::ios::app) && !std::filesystem::is_directory(path);
  if (to != path) std::remove(to.c_str());
  return can ? Status() : Status(Code::kInvalidArgument, path + ": cannot be written");
}

Status write_whole(const std::string& path, const std::string& text) {
  if (path.empty()) return {};
  const std::string to = beside(path);
  std::ofstream out(to);
  out << text;
  out.close();
  if (out && (to == path || std::rename(to.c_str(), path.c_str()) == 0)) return {};
  if (to != path) std::remove(to.c_str());
  return {Code::kInvalidArgument, path + ": cannot be written"};
}

std::string why_skipped(const Subject& subject) {
  return subject.is_empty() ? "its outputs have no elements" : "";
}

Json skipped_json(const OpLab& op, const Subject& subject) {
  const Shape& shape = subject.shape();
  return {{"op", op.name},        {"shape", shape.axes_text()},
          {"label", shape.label}, {"dtype", dtype_name(shape.dtype)},
          {"name", shape.name()}, {"skipped", why_skipped(subject)}};
}

Json context_json(Machine& machine, const LabOptions& o) {
  Json out;
  out["date"] = date();
  out["commit"] = o.commit.empty() ? "unknown" : o.commit;
  for (const auto& [key, value] : machine.description()) out[key] = value;
  out["settle_seconds"] = o.measure.settle;
  out["sample_seconds"] = o.measure.seconds;
  out["data"] = o.data;
  out["places_seed"] = seed_of_places();
  if (o.measure.company > 0) out["company"] = o.measure.company;
  return out;
}

Json roofs_json(const Roofs& roofs) {
  Json out = Json::array();
  for (const auto& r : roofs.all()) {
    Json roof = {{"name", r->name},     {"unit", r->unit},
                 {"before", r->before}, {"after", r->after},
                 {"best", r->best()},   {"uncertainty_pct", 100 * r->uncertainty()}};
    if (r->limit > 0) roof["limit"] = r->limit;
    out.push_back(std::move(roof));
  }
  return out;
}

Json row_json(Machine& machine, const OpLab& op, const Subject& subject, const Measured& row) {
  const Shape& shape = subject.shape();
  Json out = {
      {"op", op.name},        {"impl", row.implementation},       {"shape", shape.axes_text()},
      {"label", shape.label}, {"dtype", dtype_name(shape.dtype)}, {"name", shape.name()}};
  if (!row.error.empty()) {
    out["error"] = row.error;
    return out;
  }
  const Cost cost = subject.cost();
  const double s = row.seconds.value;
  const auto us = [](double v) { return v * 1e6; };
  out["us"] = {us(s), us(row.seconds.low), us(row.seconds.high)};
  out["samples"] = row.samples();
  out["launches"] = row.launches;
  if (row.burst > 0) out["burst_us"] = us(row.burst);
  out["flops"] = cost.flops;
  out["bytes"] = cost.bytes;
  out["tflops"] = cost.flops / s * 1e-12;
  out["gbytes_per_s"] = cost.bytes / s * 1e-9;
  if (const auto share = roof_share(machine, op, subject, s); share.ok() && share->roof) {
    out["roof"] = share->roof->name;
    out["roof_pct"] = 100 * share->share;
  }
  if (row.itself.value > 0) out["itself"] = interval_json(row.itself);
  if (row.readings.mhz_mean > 0) {
    out["sm_mhz"] = row.readings.mhz_mean;
    out["sm_mhz_least"] = row.readings.mhz_least;
    out["celsius"] = row.readings.celsius;
    out["throttled_by"] = row.readings.reason_names();
  }
  if (row.readings.watts > 0) {
    out["watts"] = row.readings.watts;
    out["joules"] = row.readings.watts * s;
    out["tflops_per_joule"] = cost.flops * 1e-12 / (row.readings.watts * s);
  }
  if (row.ratio) {
    out["ratio"] = interval_json(*row.ratio);
    out["verdict"] = verdict_name(row.verdict);
  }
  for (const KernelCost& k : row.kernels) {
    Json kernel = {{"name", k.name},
                   {"blocks", k.blocks},
                   {"threads", k.threads},
                   {"registers", k.registers},
                   {"local_bytes", k.local_bytes},
                   {"shared_bytes", k.shared_bytes},
                   {"blocks_per_sm", k.blocks_per_sm},
                   {"occupancy", k.occupancy}};
    if (k.sass)
      kernel["sass"] = {{"all", k.sass->all},
                        {"wgmma", k.sass->wgmma},
                        {"mma", k.sass->mma},
                        {"mufu", k.sass->mufu},
                        {"local_loads", k.sass->local_loads},
                        {"local_stores", k.sass->local_stores}};
    out["kernels"].push_back(std::move(kernel));
  }
  return out;
}

Status measure_all(Machine& machine, const LabOptions& o, Rival* rival, Json& rows,
                   const Done& done) {
  return for_each_subject(machine, o, rows, [&](const OpLab& op, Subject& subject) -> Status {
    std::vector<std::string> names = chosen(o, op, subject, machine.device());
    // Of several ops those that have what is asked for.
    if (names.size() <
        (o.two ? o.implementations.size() : std::min<size_t>(o.implementations.size(), 1)))
      return {};
    if (o.two) {
      names.resize(o.implementations.size() == 2 ? 2 : std::min<size_t>(names.size(), 1));
    }
    Rivals rivals;
    Measured without;  // the rival, if it fails as a whole
    if (rival) {
      auto opened = rival->open(op.name, subject.shape(), subject.num_sets() == 1);
      if (opened.ok()) {
        for (const std::string& name : *opened) {
          if (!has(op, name, machine.device())) continue;
          opened = Status(Code::kInternal, "the rival calls one " + in_quotes(name) + ", as we do");
          break;
        }
      }
      if (opened.ok()) rivals = {rival, *std::move(opened)};
      without.implementation = "rival";
      without.error = opened.ok() ? "" : opened.error().message();
    }
    if (o.two && names.size() == 1 && rivals.implementations.empty()) names.push_back(names[0]);
    Measurement m = measure(machine, subject, op.unit(subject.shape()), names, o.measure, rivals);
    if (!without.error.empty()) m.rows.push_back(std::move(without));
    for (const Measured& row : m.rows) {
      if (o.measure.profile) break;
      Json json = row_json(machine, op, subject, row);
      if (row.ratio && m.control) json["control"] = interval_json(*m.control);
      if (m.readings.mhz_mean > 0) json["sm_mhz_in_turns"] = m.readings.mhz_mean;
      rows.push_back(std::move(json));
    }
    done(op, subject, m);
    return {};
  });
}

void add_lab_commands(CLI::App& app, const std::vector<OpLab>& ops, std::function<int()>& run,
                      const LabOptions& defaults) {
  app.require_subcommand(1);
  const auto command = [&](const char* name, const char* what, auto&& add,
                           std::function<int(const LabOptions&)> body) {
    CLI::App& sub = *app.add_subcommand(name, what);
    auto o = std::make_shared<LabOptions>(defaults);
    auto op = std::make_shared<std::string>();
    add_common(sub, ops, o, op);
    add(sub, *o);
    sub.callback([&run, &ops, o, op, body] {
      run = [&ops, o, op, body] {
        if (const Status s = finish(*o, ops, *op); !s.ok()) return fail(s);
        return body(*o);
      };
    });
  };
  const auto json = std::make_shared<std::string>();
  const auto timing = [json](CLI::App& sub, LabOptions& o) {
    add_running(sub, o);
    sub.add_option("--settle", o.measure.settle, "Seconds of full duty before samples are taken")
        ->check(finite_number())
        ->capture_default_str();
    sub.add_option("--seconds", o.measure.seconds, "Of samples, at most")
        ->check(finite_number())
        ->capture_default_str();
    sub.add_option("--precision", o.measure.precision,
                   "Half the width of a 95 % interval that ends sampling")
        ->check(finite_number())
        ->capture_default_str();
    sub.add_option("--margin", o.measure.margin, "Times that differ by less are the same")
        ->check(finite_number())
        ->capture_default_str();
    CLI::Option* warm =
        sub.add_flag("--warm", o.warm, "One set of operands, as warm as the loop leaves it");
    sub.add_flag("--cold", o.cold, "Sets that are five times the last cache; a GPU's default")
        ->excludes(warm);
    sub.add_option("--warm-operand", o.warm_operands, "Operands that all sets share, by name")
        ->delimiter(',')
        ->excludes(warm);
    sub.add_option("--data", o.data,
                   "normal, or FILE.safetensors: weights have values of its largest tensor")
        ->capture_default_str();
    sub.add_option("--company", o.measure.company,
                   "On a GPU, between a model's products, which take this share of the time: 0.9")
        ->check(finite_number());
    sub.add_option("--rival", o.rival,
                   "A command whose implementations are timed in turns with these, as "
                   "'bench/reference_gpu.py rival'");
    sub.add_flag("--sass", o.measure.sass, "Count the kernels' instructions, by cuobjdump");
    sub.add_option("--commit", o.commit, "For the result's context; else VLR_COMMIT");
    sub.add_option("--json", *json, "Write the result there");
  };
  command(
      "list", "Ops, their axes, implementations and the models' shapes",
      [](CLI::App&, LabOptions&) {}, run_list);
  command(
      "check", "Distance from the reference, and bits alone and in batches",
      [json](CLI::App& sub, LabOptions& o) {
        add_running(sub, o);
        sub.add_option("--soak", o.soak, "Also so many launches, which must have the same bits")
            ->check(CLI::NonNegativeNumber);
        sub.add_option("--json", *json, "Write the result there");
      },
      [json](const LabOptions& o) { return run_check(o, *json); });
  command(
      "time", "Time by itself, and in turns with the first implementation",
      [timing](CLI::App& sub, LabOptions& o) {
        timing(sub, o);
        CLI::Option* profile =
            sub.add_flag("--profile", o.measure.profile,
                         "One launch of each for a profiler instead: ncu --profile-from-start off");
        for (const char* of_times : {"--settle", "--seconds", "--precision", "--margin",
                                     "--company", "--sass", "--rival", "--json"})
          profile->excludes(sub.get_option(of_times));
      },
      [json](const LabOptions& o) { return run_time(o, *json, false); });
  command(
      "ab", "FASTER, SLOWER, SAME or UNDECIDED: --impl baseline,candidate; one against itself",
      [timing](CLI::App& sub, LabOptions& o) {
        timing(sub, o);
        o.two = true;
        o.measure.alone = false;
        o.measure.burst = false;
      },
      [json](const LabOptions& o) { return run_time(o, *json, true); });
}

int lab_main(int argc, char** argv, const std::vector<OpLab>& ops) {
  CLI::App app("Checks and times the implementations of " +
               (ops.size() == 1 ? ops[0].name : std::string("ops")));
  std::function<int()> run;
  add_lab_commands(app, ops, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kFine : kUsage;
  }
  try {
    return run();
  } catch (const std::exception& e) {
    return fail({Code::kInternal, e.what()});
  }
}

}  // namespace vlr::bench
