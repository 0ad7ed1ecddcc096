/// How an op describes itself to the lab: its axes, the models' shapes, and how its arguments are made
/// of operands. bench/rmsnorm_bench.cc is the shortest one.
#ifndef VLR_BENCH_SUPPORT_OP_LAB_H_
#define VLR_BENCH_SUPPORT_OP_LAB_H_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/support/cu_kernel.h"
#include "bench/support/errors.h"
#include "bench/support/subject.h"
#include "kernels/core/plugin.h"

namespace vlr::bench {

/// Arguments for some of the rows, and where their results are.
template <class Op>
struct Part {
  typename Op::Args args;
  std::vector<Tensor> outputs;  ///< of up to three axes; the first is held against Op::tolerance
};

/// One op at one shape, made of operands.
template <class Op>
struct Setup {
  typename Op::Args args;
  std::vector<Tensor> outputs;
  /// Rows that do not depend on each other: `count` of num_rows from `begin` on. Null: they do.
  int64_t num_rows = 0;
  std::function<Part<Op>(int64_t begin, int64_t count)> rows{};
  /// What the reference computes where all of it would take long; null: the last rows, or all.
  std::function<Part<Op>()> corner{};

  Part<Op> all() const { return {args, outputs}; }
  Part<Op> few() const {
    constexpr int64_t kFew = 4;
    if (corner) return corner();
    return rows && num_rows > kFew ? rows(num_rows - kFew, kFew) : all();
  }
};

/// Makes the operands, the same ones each time.
template <class Op>
using MakeSetup = std::function<Setup<Op>(Operands&, const Shape&)>;

/// An op as the lab sees it, whatever its arguments are.
struct OpLab {
  std::string name;
  std::vector<Axis> axes;
  std::function<std::vector<Shape>(Device)> shapes;  ///< of the models
  std::function<Unit(const Shape&)> unit;            ///< what does the multiplying
  struct Implementation {
    std::string name;
    Device device;
  };
  std::function<std::vector<Implementation>()> implementations;
  std::function<Status(const PluginImpl&)> add;  ///< add_impl() of the op
  /// Adds a kernel from a .cu file under this name. kUnimplemented: the op does not say what its
  /// arguments are called.
  std::function<Status(const std::string& name, std::shared_ptr<CuKernel>)> add_cu;
  /// The shape that arguments of the op have, which `args` points to: for what a model ran.
  std::function<Shape(const void* args)> shape_of;
  /// kInvalidArgument for a shape that the op does not take.
  std::function<Result<std::unique_ptr<Subject>>(Machine&, const Shape&, const Placement&)> make;
};

/// Sets whose unavoidable traffic together is five times the cache, in not too much memory.
int64_t number_of_sets(const Cost& cost, int64_t bytes, int64_t cache_bytes, int64_t most_bytes);

template <class Op>
class OpSubject : public Subject {
 public:
  OpSubject(Machine& machine, const MakeSetup<Op>& make, const Shape& shape, const Placement& place)
      : machine_(machine), make_(make), shape_(shape), place_(place) {}

  /// Makes the operands.
  Status init() {
    if (machine_.gpu) machine_.gpu->release_all();
    add_set();
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(Op::check(sets_[0].args));
    VLR_RETURN_IF_ERROR(expect_inputs(place_.warm_operands));
    const int64_t cache = machine_.gpu ? machine_.gpu->l2_bytes() : host_cache_bytes();
    const int64_t num_sets = place_.warm ? 1
                                         : number_of_sets(cost(), operands_[0]->bytes(), cache,
                                                          machine_.bytes_for_sets());
    while (static_cast<int64_t>(sets_.size()) < num_sets) add_set();
    return machine_.finish();
  }

  const Shape& shape() const override { return shape_; }
  Cost cost() const override { return Op::cost(sets_[0].args); }
  int64_t bytes() const override { return operands_[0]->bytes() * num_sets(); }
  int64_t num_sets() const override { return static_cast<int64_t>(sets_.size()); }
  bool is_cold() const override { return num_sets() > 1 && place_.warm_operands.empty(); }
  const Operands& operands() const override { return *operands_[0]; }

  std::vector<std::string> takers() const override {
    std::vector<std::string> out;
    for (const Impl<Op>& impl : ops::implementations<Op>()) {
      if (impl.device != machine_.device()) continue;
      if (!ops::supports(impl, sets_[0].args, machine_.context(true))) continue;
      out.emplace_back(impl.name);
      if (machine_.is_gpu() && impl.name == "cublaslt") out.emplace_back("cublaslt_fast");
    }
    return out;
  }

  Result<size_t> open(const std::string& implementation) override {
    const bool exact = implementation != "cublaslt_fast";
    const std::string name = exact ? implementation : "cublaslt";
    VLR_RETURN_IF_ERROR(ops::expect_impl<Op>(name, machine_.device()));
    for (const Impl<Op>& impl : ops::implementations<Op>()) {
      if (impl.name != name || impl.device != machine_.device()) continue;
      Opened o{implementation, impl, machine_.context(exact), {}};
      if (!ops::supports(impl, sets_[0].args, o.ctx))
        return ops::unsupported(Op::kName, impl.name, machine_.device());
      VLR_RETURN_IF_ERROR(
          give_workspace(o, impl.workspace ? impl.workspace(sets_[0].args, o.ctx) : 0));
      if (machine_.gpu) {
        VLR_RETURN_IF_ERROR(
            machine_.gpu->choose_algorithms(o.ctx, [&] { return impl.run(sets_[0].args, o.ctx); }));
        VLR_RETURN_IF_ERROR(machine_.finish());
      }
      opened_.push_back(std::move(o));
      return opened_.size() - 1;
    }
    return ops::unsupported(Op::kName, name, machine_.device());
  }

  Status launch(size_t open, int64_t set) override {
    Opened& o = opened_[open];
    return o.impl.run(sets_[static_cast<size_t>(set)].args, o.ctx);
  }

  Status verify(size_t open, uint64_t seed) override {
    Want& want = want_for(seed, false);
    if (!want.status.ok()) return want.status;
    VLR_RETURN_IF_ERROR(run_on_fresh(open, seed));
    VLR_ASSIGN_OR_RETURN(const Errors e, compare(want));
    if (e.wrong > 0) {
      return {Code::kInternal, opened_[open].label + " differs from the reference in " +
                                   std::to_string(e.wrong) + " of " + std::to_string(e.elements) +
                                   " elements: " + e.worst_at};
    }
    VLR_ASSIGN_OR_RETURN(const int64_t unwritten, count_unwritten());
    if (unwritten > 0)
      return {Code::kInternal, opened_[open].label + " left " + std::to_string(unwritten) +
                                   " elements of its output as they were"};
    return compare_with_first(open, seed, false);
  }

  Result<Errors> errors(size_t open, uint64_t seed) override {
    // A reference does about a thousand million operations a second.
    constexpr double kMostFlops = 4e9;
    constexpr int64_t kMostElements = int64_t{1} << 22;
    Want& want =
        want_for(seed, cost().flops <= kMostFlops && sets_[0].outputs[0].numel() <= kMostElements);
    if (!want.status.ok()) return want.status;
    VLR_RETURN_IF_ERROR(run_on_fresh(open, seed));
    VLR_ASSIGN_OR_RETURN(Errors first, compare(want));
    if (works_in_place()) return first;
    VLR_ASSIGN_OR_RETURN(const int64_t unwritten, count_unwritten());
    if (unwritten > 0 && first.wrong == 0) {
      first.wrong = unwritten;
      first.worst_at = "elements of the output are as they were before the launch";
    }
    operands_[0]->poison_outputs(Poison::kNumbers);
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(launch(open, 0));
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_ASSIGN_OR_RETURN(Errors again, compare(want));
    if (again.wrong <= first.wrong) return first;
    again.worst_at += "; in a second launch on the same inputs";
    return again;
  }

  Status same_bits_in_batches(size_t open) override {
    const Setup<Op>& s = sets_[0];
    if (!s.rows) return {Code::kUnimplemented, "rows depend on each other"};
    const int64_t n = s.num_rows;
    if (n == 0) return {};
    std::vector<std::pair<int64_t, int64_t>> ranges = {{0, 1},
                                                       {n - 1, 1},
                                                       {n / 2, 1},
                                                       {n / 3, std::min<int64_t>(7, n - n / 3)},
                                                       {0, std::min<int64_t>(n, 33)},
                                                       {n / 2, n - n / 2},
                                                       {0, n}};
    Opened& o = opened_[open];
    std::vector<Part<Op>> parts;
    int64_t scratch = 0;
    std::vector<std::vector<std::byte>> want;
    for (const auto& [begin, count] : ranges) parts.push_back(s.rows(begin, count));
    VLR_RETURN_IF_ERROR(run_on_fresh(open, kSeed));
    for (const Part<Op>& p : parts) {
      want.push_back(bytes_of(p));
      // What takes the whole batch may not take a part of it: another implementation then does.
      if (ops::supports(o.impl, p.args, o.ctx) && o.impl.workspace)
        scratch = std::max(scratch, o.impl.workspace(p.args, o.ctx));
    }
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(give_workspace(o, scratch));
    for (size_t i = 0; i < parts.size(); ++i) {
      if (!ops::supports(o.impl, parts[i].args, o.ctx)) continue;
      operands_[0]->refill(kSeed);
      VLR_RETURN_IF_ERROR(machine_.finish());
      VLR_RETURN_IF_ERROR(o.impl.run(parts[i].args, o.ctx));
      VLR_RETURN_IF_ERROR(machine_.finish());
      if (bytes_of(parts[i]) == want[i]) continue;
      return {Code::kInternal, o.label + ": rows " + std::to_string(ranges[i].first) + " to " +
                                   std::to_string(ranges[i].first + ranges[i].second - 1) +
                                   " have other bits by themselves than among all " +
                                   std::to_string(n)};
    }
    return machine_.finish();
  }

  void poison_outputs() override {
    for (const auto& o : operands_) o->poison_outputs(Poison::kNumbers);
  }

  Status check_left(size_t open) override {
    if (works_in_place()) return check_next_launch(open);
    if (filled_wants_.empty()) return {Code::kInternal, "check_left() before fill()"};
    for (const auto& [set, want] : filled_wants_) {
      if (!want.status.ok()) return want.status;
      VLR_ASSIGN_OR_RETURN(const Errors e, compare(want));
      if (e.wrong == 0) continue;
      return {Code::kInternal,
              opened_[open].label +
                  " left other values than the reference in the timed launches: " + e.worst_at};
    }
    // Set 0 is filled as for verify(kSeed), of which the whole output is known.
    if (!place_.data.weights.empty()) return {};
    return compare_with_first(open, kSeed, true).with_context("timed launches");
  }

  Status soak(size_t open, int64_t launches) override {
    std::vector<std::byte> first;
    const bool refills = works_in_place();
    operands_[0]->refill(kSeed);
    for (int64_t i = 0; i < launches; ++i) {
      refills ? operands_[0]->refill(kSeed) : operands_[0]->poison_outputs();
      VLR_RETURN_IF_ERROR(launch(open, 0));
      std::vector<std::byte> bytes = bytes_of(sets_[0].all());
      VLR_RETURN_IF_ERROR(machine_.finish());
      if (i == 0)
        first = std::move(bytes);
      else if (bytes != first)
        return {Code::kInternal, opened_[open].label + ": launch " + std::to_string(i) + " of " +
                                     std::to_string(launches) + " has other bits than the first"};
    }
    return {};
  }

  void fill() override {
    current_ = place_.data;
    for (const size_t set : {size_t{0}, operands_.size() - 1}) {
      const auto [it, made] = filled_wants_.try_emplace(set);
      if (!made) continue;
      operands_[set]->refill(set + kSeed);
      it->second.status = make_want(it->second, false, set);
    }
    for (size_t i = 0; i < operands_.size(); ++i) operands_[i]->refill(i + kSeed);
    current_ = {};
  }

 private:
  static constexpr uint64_t kSeed = 1;  ///< of the first set; the next ones have the next seeds

  struct Opened {
    std::string label;
    Impl<Op> impl;
    Context ctx;
    std::unique_ptr<HostOperands> scratch;
  };

  /// What the reference gave, once a seed.
  struct Want {
    Status status;
    struct Output {
      Tensor tensor;  ///< where they are, in the set
      std::vector<float> values;
    };
    std::vector<Output> outputs;
    Tolerance tolerance;                                             ///< of the first output
    std::vector<std::pair<std::string, std::vector<float>>> inputs;  ///< of the output's shape
  };

  void add_set() {
    const Operands* first = operands_.empty() ? nullptr : operands_[0].get();
    const uint64_t seed = operands_.size() + kSeed;
    if (machine_.gpu)
      operands_.push_back(std::make_unique<DeviceOperands>(*machine_.gpu, seed, &current_, first,
                                                           place_.warm_operands));
    else
      operands_.push_back(
          std::make_unique<HostOperands>(seed, &current_, first, place_.warm_operands));
    sets_.push_back(make_(*operands_.back(), shape_));
  }

  /// What a set writes must not be another's.
  Status expect_inputs(const std::set<std::string>& names) const {
    std::set<std::string> inputs;
    for (const Operands::Named& n : operands_[0]->all()) {
      if (n.kind != Operands::Kind::kOutput) inputs.insert(n.name);
    }
    for (const std::string& name : names) {
      if (inputs.contains(name)) continue;
      std::string all;
      for (const std::string& input : inputs) all += (all.empty() ? "" : ", ") + input;
      return {Code::kInvalidArgument,
              "--warm-operand must be an input: " + all + "; got '" + name + "'"};
    }
    return {};
  }

  Status give_workspace(Opened& o, int64_t bytes) {
    if (static_cast<int64_t>(o.ctx.workspace.size()) >= bytes && bytes > 0) return {};
    std::byte* data = nullptr;
    if (machine_.gpu) {
      data = bytes > 0 ? machine_.gpu->allocate(bytes) : nullptr;
    } else {
      o.scratch = std::make_unique<HostOperands>();
      data = o.scratch->output("scratch", {bytes}, DType::kU8).template as<std::byte>();
    }
    o.ctx.workspace = {data, static_cast<size_t>(bytes)};
    return machine_.finish();
  }

  /// One launch on set 0, filled from this seed.
  Status run_on_fresh(size_t open, uint64_t seed) {
    operands_[0]->refill(seed);
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(launch(open, 0));
    return machine_.finish();
  }

  Want& want_for(uint64_t seed, bool whole) {
    const auto [it, made] = wants_.try_emplace({seed, whole});
    if (!made) return it->second;
    operands_[0]->refill(seed);
    it->second.status = make_want(it->second, whole, 0);
    return it->second;
  }

  /// Of what the set holds now.
  Status make_want(Want& want, bool whole, size_t set) {
    VLR_RETURN_IF_ERROR(machine_.finish());
    MirrorOperands copy(machine_.gpu.get(), *operands_[set]);
    const Setup<Op> host = make_(copy, shape_);
    VLR_RETURN_IF_ERROR(machine_.finish());
    const Part<Op> part = whole ? host.all() : host.few();
    Context ctx;
    ctx.threads = &machine_.threads;
    // Inputs of the output's shape, to show beside a wrong element, before anything is changed.
    for (const Operands::Named& n : copy.all()) {
      const Tensor& t = n.tensor;
      const bool alike = n.kind != Operands::Kind::kOutput && t.rank == host.outputs[0].rank &&
                         t.dims == host.outputs[0].dims && whole;
      if (alike && is_float(t.dtype)) want.inputs.emplace_back(n.name, values_of(t));
    }
    Status s{Code::kInternal, "there is no reference"};
    for (const Impl<Op>& impl : Op::impls()) {
      if (impl.name == "reference") s = impl.run(part.args, ctx);
    }
    VLR_RETURN_IF_ERROR(s.with_context("reference"));
    for (Tensor t : part.outputs) {
      std::vector<float> values = values_of(t);
      t.data = counterpart(copy, t.template as<std::byte>(), set);
      t.device = machine_.device();
      want.outputs.push_back({t, std::move(values)});
    }
    want.tolerance = Op::tolerance(sets_[0].args);
    return {};
  }

  /// Where an output is an input, too, timed launches have gone on from what earlier ones left, which
  /// nobody knows, and which may have stopped to change. So some launches go on from fill()'s operands,
  /// and the next one is held against the reference of what they left.
  Status check_next_launch(size_t open) {
    constexpr int kLaunches = 8;
    for (const size_t set : std::set{size_t{0}, operands_.size() - 1}) {
      operands_[set]->refill(set + kSeed);
      VLR_RETURN_IF_ERROR(machine_.finish());
      const auto at = static_cast<int64_t>(set);
      for (int i = 0; i < kLaunches; ++i) VLR_RETURN_IF_ERROR(launch(open, at));
      Want want;
      VLR_RETURN_IF_ERROR(make_want(want, false, set));
      VLR_RETURN_IF_ERROR(launch(open, at));
      VLR_RETURN_IF_ERROR(machine_.finish());
      VLR_ASSIGN_OR_RETURN(const Errors e, compare(want));
      if (e.wrong == 0) continue;
      return {Code::kInternal,
              opened_[open].label +
                  " differs from the reference where launches go on from what earlier ones left: " +
                  e.worst_at};
    }
    return {};
  }

  bool works_in_place() const {
    return !std::ranges::all_of(sets_[0].outputs,
                                [&](const Tensor& t) { return is_output_only(t); });
  }
  bool is_output_only(const Tensor& t) const {
    const auto* p = t.template as<std::byte>();
    return std::ranges::any_of(operands_[0]->all(), [&](const Operands::Named& n) {
      const auto* begin = n.tensor.template as<std::byte>();
      return n.kind == Operands::Kind::kOutput && p >= begin && p < begin + n.tensor.bytes();
    });
  }

  /// The byte of a set that a byte of a copy of it is.
  std::byte* counterpart(const Operands& copy, const std::byte* p, size_t set) const {
    for (size_t i = 0; i < copy.all().size(); ++i) {
      const Tensor& t = copy.all()[i].tensor;
      const auto* begin = t.template as<std::byte>();
      if (p >= begin && p < begin + t.bytes())
        return operands_[set]->all()[i].tensor.template as<std::byte>() + (p - begin);
    }
    return nullptr;
  }

  Result<std::vector<float>> read(const Tensor& output) {
    std::vector<std::byte> memory;
    const Tensor t = on_host(output, memory);
    VLR_RETURN_IF_ERROR(machine_.finish());
    return values_of(t);
  }

  /// The tensor itself, or a copy of the bytes from its first to its last element.
  Tensor on_host(Tensor t, std::vector<std::byte>& memory) {
    if (!machine_.gpu) return t;
    memory.resize(static_cast<size_t>(span_of(t) * dtype_bytes(t.dtype)));
    machine_.gpu->download(memory.data(), t.data, static_cast<int64_t>(memory.size()));
    t.data = memory.data();
    t.device = Device::kCpu;
    return t;
  }

  std::vector<std::byte> bytes_of(const Part<Op>& part) {
    std::vector<std::byte> out, memory;
    for (const Tensor& o : part.outputs) append_bytes(on_host(o, memory), out);
    return out;
  }

  /// Outputs as they are now. Those behind the first one, scales and sums, which the op's tests hold
  /// against tolerances of their own, count as wrong where they are far away.
  Result<Errors> compare(const Want& want) {
    constexpr Tolerance kNear = {.rel = 0x1p-6};
    Errors out;
    for (size_t i = 0; i < want.outputs.size(); ++i) {
      const auto& [tensor, values] = want.outputs[i];
      VLR_ASSIGN_OR_RETURN(const std::vector<float> got, read(tensor));
      if (i == 0) {
        out = compare_values(got, values, tensor, want.tolerance, want.inputs);
        continue;
      }
      const Errors e = compare_values(got, values, tensor, kNear);
      if (e.wrong == 0) continue;
      out.wrong += e.wrong;
      out.worst_at = "output " + std::to_string(i) + e.worst_at;
    }
    return out;
  }

  /// Elements of the first output that are still NaN, all inputs being finite: of those that are not
  /// too many to look at.
  Result<int64_t> count_unwritten() {
    constexpr int64_t kMost = int64_t{1} << 24;
    const Tensor& t = sets_[0].outputs[0];
    if (works_in_place() || !is_float(t.dtype) || t.numel() > kMost) return int64_t{0};
    VLR_ASSIGN_OR_RETURN(const std::vector<float> values, read(t));
    return std::ranges::count_if(values, [](float v) { return std::isnan(v); });
  }

  /// All of the output against that of the implementation that was verified first; `itself`: also of
  /// that one.
  Status compare_with_first(size_t open, uint64_t seed, bool itself) {
    const Tensor& t = sets_[0].outputs[0];
    if (!machine_.gpu) return compare_on_host(open, seed, itself);
    if (!t.contiguous()) return {};
    if (itself && first_.seed != seed) return {};
    if (first_.seed != seed) {
      if (!first_.copy.data) {
        first_.copy = t;
        first_.copy.data = machine_.gpu->allocate(t.bytes());
      }
      first_.seed = seed;
      first_.open = open;
      return machine_.gpu->copy(first_.copy.data, t.data, t.bytes());
    }
    if (first_.open == open && !itself) return {};
    VLR_ASSIGN_OR_RETURN(const int64_t at, machine_.gpu->first_difference(
                                               t, first_.copy, Op::tolerance(sets_[0].args)));
    if (at < 0) return {};
    return {Code::kInternal, opened_[open].label + " differs from " + opened_[first_.open].label +
                                 " at element " + std::to_string(at) + " of " +
                                 std::to_string(t.numel())};
  }

  Status compare_on_host(size_t open, uint64_t seed, bool itself) {
    const Tensor& t = sets_[0].outputs[0];
    std::vector<float> values = values_of(t);
    if (first_.seed != seed) {
      if (itself) return {};
      first_.seed = seed;
      first_.open = open;
      first_.values = std::move(values);
      return {};
    }
    if (first_.open == open && !itself) return {};
    const Tolerance one = Op::tolerance(sets_[0].args);
    const Tolerance both = {.rel = 2 * one.rel, .abs = 2 * one.abs};  // each may be off by one
    const Errors e = compare_values(values, first_.values, t, both);
    if (e.wrong == 0) return {};
    return {Code::kInternal, opened_[open].label + " differs from what " +
                                 opened_[first_.open].label + " gave at first in " +
                                 std::to_string(e.wrong) + " of " + std::to_string(e.elements) +
                                 " elements: " + e.worst_at};
  }

  Machine& machine_;
  const MakeSetup<Op>& make_;
  Shape shape_;
  Placement place_;
  Data current_;  // what operands are filled with now
  std::vector<std::unique_ptr<Operands>> operands_;
  std::vector<Setup<Op>> sets_;
  std::vector<Opened> opened_;
  std::map<std::pair<uint64_t, bool>, Want> wants_;
  std::map<size_t, Want> filled_wants_;  // of what fill() fills with: the first and the last set
  struct {
    uint64_t seed = ~uint64_t{0};
    size_t open = 0;
    Tensor copy;                ///< on a GPU
    std::vector<float> values;  ///< on the host
  } first_;
};

/// What an op's file writes down.
template <class Op>
struct OpDescription {
  std::vector<Axis> axes;
  std::function<std::vector<Shape>(Device, std::span<const Axis>)> shapes;
  MakeSetup<Op> make;
  /// The shape of arguments, that make() would give again.
  std::function<Shape(const typename Op::Args&, std::span<const Axis>)> shape_of;
  /// The arguments by name, for --cu; null: it does not take any.
  std::function<Fields(const typename Op::Args&)> fields{};
  std::function<Unit(const Shape&)> unit{};  ///< null: that of the activations
};

/// Where a kernel from a file is for an implementation's function to find: one an op.
template <class Op>
struct LoadedKernel {
  static inline std::string name;
  static inline std::shared_ptr<CuKernel> kernel;
  static inline std::function<Fields(const typename Op::Args&)> fields;
  static Status run(const typename Op::Args& args, Context& ctx) {
    return kernel->launch(fields(args), ctx.stream);
  }
  static bool supports(const typename Op::Args& args, const Context&) {
    return kernel->takes(fields(args));
  }
};

inline Unit unit_of(DType dtype) {
  if (dtype == DType::kBF16) return Unit::kBF16;
  if (dtype == DType::kF16) return Unit::kF16;
  if (dtype == DType::kI8) return Unit::kI8;
  return dtype == DType::kF8E4M3 ? Unit::kF8 : Unit::kF32;
}

template <class Op>
OpLab op_lab(OpDescription<Op> d) {
  OpLab lab;
  lab.name = Op::kName;
  lab.axes = d.axes;
  lab.shapes = [d](Device device) { return d.shapes(device, d.axes); };
  lab.unit = d.unit ? d.unit : [](const Shape& s) { return unit_of(s.dtype); };
  lab.implementations = [] {
    std::vector<OpLab::Implementation> out;
    for (const Impl<Op>& impl : ops::implementations<Op>())
      out.push_back({std::string(impl.name), impl.device});
    return out;
  };
  lab.add = add_impl<Op>;
  lab.add_cu = [d](const std::string& name, std::shared_ptr<CuKernel> kernel) -> Status {
    using Loaded = LoadedKernel<Op>;
    if (!d.fields)
      return {Code::kUnimplemented, std::string(Op::kName) + " takes no kernel by --cu"};
    if (Loaded::kernel) return {Code::kInvalidArgument, "one --cu an op"};
    if (ops::expect_impl<Op>(name, Device::kCuda).ok())
      return {Code::kInvalidArgument, "there is an implementation " + name};
    Loaded::name = name;
    Loaded::kernel = std::move(kernel);
    Loaded::fields = d.fields;
    ops::added<Op>().push_back({Loaded::name, Device::kCuda, Loaded::run, Loaded::supports});
    return {};
  };
  lab.shape_of = [d](const void* args) {
    return d.shape_of(*static_cast<const typename Op::Args*>(args), d.axes);
  };
  const auto make = std::make_shared<MakeSetup<Op>>(std::move(d.make));
  lab.make = [make](Machine& machine, const Shape& shape,
                    const Placement& place) -> Result<std::unique_ptr<Subject>> {
    auto subject = std::make_unique<OpSubject<Op>>(machine, *make, shape, place);
    try {
      VLR_RETURN_IF_ERROR(subject->init());
    } catch (const std::bad_alloc&) {
      return Status(Code::kOutOfMemory, "its operands take more memory than there is");
    } catch (const std::logic_error& e) {  // what make() or a view says of a shape
      return Status(Code::kInvalidArgument, e.what());
    }
    return std::unique_ptr<Subject>(std::move(subject));
  };
  return lab;
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_OP_LAB_H_
