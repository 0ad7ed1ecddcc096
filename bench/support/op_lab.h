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
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
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
  /// What the reference computes where all of it would take long; null: some rows, or all.
  std::function<Part<Op>()> corner{};

  Part<Op> all() const { return {args, outputs}; }
  /// The corner; or the first row, the last one and some between them, by the seed.
  std::vector<Part<Op>> few(uint64_t seed) const {
    constexpr int64_t kFew = 16;
    if (corner) return {corner()};
    if (!rows || num_rows <= kFew) return {all()};
    std::mt19937_64 rng(seed);
    std::set<int64_t> picked = {0, num_rows - 1};
    while (std::ssize(picked) < kFew)
      picked.insert(static_cast<int64_t>(rng() % static_cast<uint64_t>(num_rows)));
    std::vector<Part<Op>> parts;
    for (const int64_t row : picked) parts.push_back(rows(row, 1));
    return parts;
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
    places_.seed(seed_of_places() + std::hash<std::string>()(shape_.name()));
    chosen_set_ = static_cast<size_t>(places_() % operands_.size());
    return machine_.finish();
  }

  const Shape& shape() const override { return shape_; }
  Cost cost() const override { return Op::cost(sets_[0].args); }
  int64_t bytes() const override { return operands_[0]->bytes() * num_sets(); }
  int64_t num_sets() const override { return static_cast<int64_t>(sets_.size()); }
  bool is_empty() const override {
    return std::ranges::all_of(sets_[0].outputs, [](const Tensor& t) { return t.numel() == 0; });
  }
  bool is_cold() const override { return num_sets() > 1 && place_.warm_operands.empty(); }
  const Operands& operands() const override { return *operands_[0]; }

  std::vector<std::string> takers() const override {
    std::vector<std::string> out;
    for (const Impl<Op>& impl : ops::implementations<Op>()) {
      if (impl.device != machine_.device()) continue;
      const auto takes = supports(impl, sets_[0].args, machine_.context(true));
      if (takes.ok() && !*takes) continue;  // who throws is told so when opened
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
      VLR_ASSIGN_OR_RETURN(const bool takes, supports(impl, sets_[0].args, o.ctx));
      if (!takes) return ops::unsupported(Op::kName, impl.name, machine_.device());
      VLR_ASSIGN_OR_RETURN(const int64_t scratch, workspace(impl, sets_[0].args, o.ctx));
      VLR_RETURN_IF_ERROR(give_workspace(o, scratch));
      if (machine_.gpu) {
        VLR_RETURN_IF_ERROR(
            machine_.gpu->choose_algorithms(o.ctx, [&] { return run(o, sets_[0].args); }));
        VLR_RETURN_IF_ERROR(machine_.finish());
      }
      opened_.push_back(std::move(o));
      return opened_.size() - 1;
    }
    return ops::unsupported(Op::kName, name, machine_.device());
  }

  Status launch(size_t open, int64_t set) override {
    return run(opened_[open], sets_[static_cast<size_t>(set)].args);
  }

  Status verify(size_t open, uint64_t seed) override {
    // A reference does about a thousand million operations a second.
    const bool whole = yardstick(open).empty() && is_within(1e9, int64_t{1} << 22);
    VLR_ASSIGN_OR_RETURN(const Errors e, examine(open, seed, Contents::kNormal, whole));
    if (e.wrong == 0) return {};
    return {Code::kInternal, opened_[open].label + " differs from the " + e.other + " in " +
                                 std::to_string(e.wrong) + " of " + std::to_string(e.elements) +
                                 " elements: " + e.worst_at};
  }

  Result<Errors> errors(size_t open, uint64_t seed, Contents contents) override {
    const int64_t most = int64_t{1} << (yardstick(open).empty() ? 25 : 22);
    const bool whole = is_within(4e9, most);
    VLR_ASSIGN_OR_RETURN(Errors first, examine(open, seed, contents, whole));
    if (works_in_place() || first.wrong > 0) return first;
    operands_[0]->poison_outputs(Poison::kNumbers);
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(launch(open, 0));
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_ASSIGN_OR_RETURN(Errors again, compare(want_for(seed, contents, whole)));
    if (again.wrong == 0 && !whole) {
      VLR_ASSIGN_OR_RETURN(const auto far, far_from_known(seed, contents));
      if (far) again = *far;
    }
    if (again.wrong == 0) return first;
    again.worst_at += "; in a second launch on the same inputs";
    return again;
  }

  Status same_bits(size_t open) override {
    const Setup<Op>& s = sets_[0];
    Opened& o = opened_[open];
    VLR_RETURN_IF_ERROR(run_on_fresh(open, kSeed));
    const std::vector<std::byte> all = bytes_of(s.all());
    VLR_RETURN_IF_ERROR(same_bits_on_other_threads(open, all));
    if (!s.rows) return {Code::kUnimplemented, "rows depend on each other"};
    const int64_t n = s.num_rows;
    if (n == 0) return {};
    std::set<std::pair<int64_t, int64_t>> ranges = {{0, 1},
                                                    {n - 1, 1},
                                                    {n / 2, 1},
                                                    {n / 3, std::min<int64_t>(7, n - n / 3)},
                                                    {0, std::min<int64_t>(n, 33)},
                                                    {n / 2, n - n / 2}};
    ranges.erase({0, n});
    // What takes the whole batch may not take a part of it: another implementation then does.
    std::vector<std::pair<std::pair<int64_t, int64_t>, Part<Op>>> parts;
    int64_t scratch = 0;
    for (const auto& range : ranges) {
      Part<Op> part = s.rows(range.first, range.second);
      VLR_ASSIGN_OR_RETURN(const bool takes, supports(o.impl, part.args, o.ctx));
      if (!takes) continue;
      VLR_ASSIGN_OR_RETURN(const int64_t bytes, workspace(o.impl, part.args, o.ctx));
      scratch = std::max(scratch, bytes);
      parts.emplace_back(range, std::move(part));
    }
    VLR_RETURN_IF_ERROR(run_on_fresh(open, kSeed));
    std::vector<std::vector<std::byte>> want;
    for (const auto& [range, part] : parts) want.push_back(bytes_of(part));
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(give_workspace(o, scratch));
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto& [range, part] = parts[i];
      operands_[0]->refill(kSeed);
      VLR_RETURN_IF_ERROR(machine_.finish());
      VLR_RETURN_IF_ERROR(run(o, part.args));
      VLR_RETURN_IF_ERROR(machine_.finish());
      if (bytes_of(part) == want[i]) continue;
      return {Code::kInternal, o.label + ": rows " + std::to_string(range.first) + " to " +
                                   std::to_string(range.first + range.second - 1) +
                                   " have other bits by themselves than among all " +
                                   std::to_string(n)};
    }
    VLR_RETURN_IF_ERROR(machine_.finish());
    if (parts.empty()) return {Code::kUnimplemented, "it takes no part of the rows"};
    return {};
  }

  void poison_outputs() override {
    for (const auto& o : operands_) o->poison_outputs(Poison::kNumbers);
  }

  void poison_places() override {
    constexpr int kPlaces = 16;
    const auto it = filled_.find(chosen_set_);
    if (works_in_place() || it == filled_.end()) return;
    const auto any_below = [&](int64_t n) {
      return static_cast<int64_t>(places_() % static_cast<uint64_t>(n));
    };
    for (const auto& output : it->second.want.outputs) {
      for (int i = 0; i < kPlaces; ++i) {
        const Tensor& t = output.parts[static_cast<size_t>(any_below(std::ssize(output.parts)))];
        if (t.numel() == 0) continue;
        int64_t at = 0;
        for (int axis = 0; axis < t.rank; ++axis) at += any_below(t.dim(axis)) * t.stride(axis);
        const int64_t size = dtype_bytes(t.dtype);
        operands_[chosen_set_]->poison_at(t.template as<std::byte>() + at * size, size,
                                          Poison::kNumbers);
      }
    }
  }

  Status check_left(size_t open) override {
    const std::string& label = opened_[open].label;
    for (const auto& o : operands_) VLR_RETURN_IF_ERROR(says(label, o->guards_intact()));
    if (works_in_place()) return check_next_launch(open);
    if (filled_.empty()) return {Code::kInternal, "check_left() before fill()"};
    for (const auto& [set, filled] : filled_) {
      if (!filled.want.status.ok()) return filled.want.status;
      VLR_RETURN_IF_ERROR(says(label, expect_untouched(set, filled.fixed)));
      VLR_ASSIGN_OR_RETURN(const Errors e, compare(filled.want));
      if (e.wrong == 0) continue;
      return {Code::kInternal,
              label + " left other values than the reference in the timed launches: " + e.worst_at};
    }
    // Set 0 is filled as for verify(kSeed), of which the whole output is known.
    if (!place_.data.weights.empty()) return {};
    VLR_ASSIGN_OR_RETURN(const auto far, far_from_known(kSeed, Contents::kNormal));
    if (!far) return {};
    return {Code::kInternal, "timed launches: " + label + " left other values than the " +
                                 far->other + " in " + std::to_string(far->wrong) + " of " +
                                 std::to_string(far->elements) + " elements: " + far->worst_at};
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
    for (const size_t set : {size_t{0}, operands_.size() - 1, chosen_set_}) {
      const auto [it, made] = filled_.try_emplace(set);
      if (!made) continue;
      operands_[set]->refill(set + kSeed);
      Filled& filled = it->second;
      filled.want.status = make_want(filled.want, set, few(set));
      auto fixed = checksums_of_fixed(set);
      fixed.ok() ? void(filled.fixed = *std::move(fixed))
                 : void(filled.want.status = fixed.error());
    }
    for (size_t i = 0; i < operands_.size(); ++i) operands_[i]->refill(i + kSeed);
    current_ = {};
  }

 private:
  static constexpr uint64_t kSeed = 1;  ///< of the first set; the next ones have the next seeds
  static constexpr Tolerance kNear = {.rel = 0x1p-6};  ///< of outputs behind the first one

  struct Opened {
    std::string label;
    Impl<Op> impl;
    Context ctx;
    std::unique_ptr<Operands> scratch;
  };
  static Result<bool> supports(const Impl<Op>& impl, const typename Op::Args& args,
                               const Context& ctx) {
    return without_throwing([&]() -> Result<bool> { return ops::supports(impl, args, ctx); });
  }
  static Result<int64_t> workspace(const Impl<Op>& impl, const typename Op::Args& args,
                                   const Context& ctx) {
    return without_throwing([&]() -> Result<int64_t> {
      return impl.workspace ? impl.workspace(args, ctx) : int64_t{0};
    });
  }
  static Status run(Opened& o, const typename Op::Args& args) {
    return without_throwing([&] { return o.impl.run(args, o.ctx); });
  }
  /// With the implementation's name in front: "fast wrote behind the operand y".
  static Status says(const std::string& label, const Status& s) {
    return s.ok() ? s : Status(s.code(), label + " " + s.message());
  }

  /// What the reference gave, once a seed.
  struct Want {
    Status status;
    size_t set = 0;
    struct Output {
      std::vector<Tensor> parts;  ///< where they are, in the set
      std::vector<float> values;  ///< of one part after another
    };
    std::vector<Output> outputs;
    Tolerance tolerance;                                             ///< of the first output
    std::vector<std::pair<std::string, std::vector<float>>> inputs;  ///< of the output's shape
  };

  /// What fill() fills a set with.
  struct Filled {
    Want want;
    std::vector<uint64_t> fixed;
  };
  /// What the reference computes.
  using Which = std::function<std::vector<Part<Op>>(const Setup<Op>&)>;
  static Which few(uint64_t seed) {
    return [seed](const Setup<Op>& s) { return s.few(seed_of_places() + seed); };
  }
  static Which whole() {
    return [](const Setup<Op>& s) { return std::vector{s.all()}; };
  }
  bool is_within(double flops, int64_t elements) const {
    return cost().flops <= flops && sets_[0].outputs[0].numel() <= elements;
  }

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
    if (static_cast<int64_t>(o.ctx.workspace.size()) >= bytes) return {};
    if (machine_.gpu)
      o.scratch = std::make_unique<DeviceOperands>(*machine_.gpu, kSeed);
    else
      o.scratch = std::make_unique<HostOperands>();
    const Tensor t = o.scratch->output("workspace", {bytes}, DType::kU8);
    o.ctx.workspace = {t.template as<std::byte>(), static_cast<size_t>(bytes)};
    return machine_.finish();
  }

  /// One launch on set 0, filled from this seed, that writes to its outputs alone.
  Status run_on_fresh(size_t open, uint64_t seed, Contents contents = Contents::kNormal) {
    operands_[0]->refill(seed, contents);
    VLR_ASSIGN_OR_RETURN(const std::vector<uint64_t> before, checksums_of_fixed(0));
    VLR_RETURN_IF_ERROR(machine_.finish());
    VLR_RETURN_IF_ERROR(launch(open, 0));
    VLR_RETURN_IF_ERROR(machine_.finish());
    const Opened& o = opened_[open];
    VLR_RETURN_IF_ERROR(says(o.label, expect_untouched(0, before)));
    return o.scratch ? says(o.label, o.scratch->guards_intact()) : Status();
  }

  /// Of what no launch may write, an operand each: inputs, and what lies between elements of outputs.
  Result<std::vector<uint64_t>> checksums_of_fixed(size_t set) {
    std::vector<uint64_t> sums;
    for (const Operands::Named& n : operands_[set]->all()) {
      const auto* const begin = n.tensor.template as<std::byte>();
      const int64_t bytes = n.tensor.bytes();
      std::vector<Tensor> written;
      int64_t elements = 0;
      for (const Tensor& t : sets_[set].outputs) {
        if (!is_in(t, n.tensor)) continue;
        written.push_back(t);
        elements += t.numel();
      }
      if (bytes == 0 || elements >= n.tensor.numel() ||
          (written.empty() && n.kind == Operands::Kind::kOutput)) {
        sums.push_back(0);
      } else if (written.empty()) {
        VLR_ASSIGN_OR_RETURN(const uint64_t sum, operands_[set]->checksum(begin, bytes));
        sums.push_back(sum);
      } else {  // of a copy, without the outputs
        std::vector<std::byte> copy;
        on_host(n.tensor, copy);
        VLR_RETURN_IF_ERROR(machine_.finish());
        if (copy.empty()) copy.assign(begin, begin + bytes);
        for (Tensor t : written) {
          t.data = copy.data() + (t.template as<std::byte>() - begin);
          const int64_t size = dtype_bytes(t.dtype);
          for_each_element(t, [&](int64_t at) {
            std::memset(t.template as<std::byte>() + at * size, 0, static_cast<size_t>(size));
          });
        }
        sums.push_back(checksum(copy.data(), bytes));
      }
    }
    return sums;
  }
  Status expect_untouched(size_t set, const std::vector<uint64_t>& before) {
    VLR_RETURN_IF_ERROR(operands_[set]->guards_intact());
    VLR_ASSIGN_OR_RETURN(const std::vector<uint64_t> now, checksums_of_fixed(set));
    for (size_t i = 0; i < before.size(); ++i) {
      const Operands::Named& n = operands_[set]->all()[i];
      if (now[i] == before[i]) continue;
      const bool gaps = std::ranges::any_of(sets_[set].outputs,
                                            [&](const Tensor& t) { return is_in(t, n.tensor); });
      return {Code::kInternal,
              gaps ? "wrote between the rows of its output, into the operand " + n.name
                   : "changed the operand " + n.name + ", which it only reads"};
    }
    return {};
  }
  static bool is_in(const Tensor& t, const Tensor& operand) {
    const auto *p = t.template as<std::byte>(), *begin = operand.template as<std::byte>();
    return p >= begin && p < begin + operand.bytes();
  }

  /// The whole output again, with one thread where there are several, else with two.
  Status same_bits_on_other_threads(size_t open, const std::vector<std::byte>& want) {
    if (machine_.gpu) return {};
    Opened& o = opened_[open];
    const int threads = machine_.threads.num_threads();
    ThreadPool other(threads > 1 ? 1 : 2);
    o.ctx.threads = &other;
    const Status s = [&]() -> Status {
      VLR_ASSIGN_OR_RETURN(const bool takes, supports(o.impl, sets_[0].args, o.ctx));
      if (!takes) return {};
      VLR_ASSIGN_OR_RETURN(const int64_t scratch, workspace(o.impl, sets_[0].args, o.ctx));
      VLR_RETURN_IF_ERROR(give_workspace(o, scratch));
      return run_on_fresh(open, kSeed);
    }();
    o.ctx.threads = &machine_.threads;
    VLR_RETURN_IF_ERROR(s);
    if (bytes_of(sets_[0].all()) == want) return {};
    return {Code::kInternal, o.label + " has other bits with one thread than with " +
                                 std::to_string(std::max(threads, 2))};
  }

  Want& want_for(uint64_t seed, Contents contents, bool all) {
    const auto [it, made] = wants_.try_emplace({seed, contents, all});
    if (!made) return it->second;
    operands_[0]->refill(seed, contents);
    it->second.status = make_want(it->second, 0, all ? whole() : few(seed));
    return it->second;
  }

  /// One launch on fresh operands against the reference, which computes all of it or some; then all of
  /// it against the yardstick, or without one for NaN that is still there.
  Result<Errors> examine(size_t open, uint64_t seed, Contents contents, bool whole) {
    const Want& want = want_for(seed, contents, whole);
    if (!want.status.ok()) return want.status;
    for (;;) {
      const std::string other = whole ? "" : yardstick(open);
      if (!other.empty() && !know(other, seed, contents)) {
        distrusted_.insert(other);
        continue;
      }
      VLR_RETURN_IF_ERROR(run_on_fresh(open, seed, contents));
      VLR_ASSIGN_OR_RETURN(Errors e, compare(want));
      if (e.wrong > 0) return e;
      if (other.empty()) {
        if (!whole) VLR_RETURN_IF_ERROR(count_unwritten(e));
        if (e.wrong == 0 && !knows(seed, contents)) VLR_RETURN_IF_ERROR(keep(open, seed, contents));
        return e;
      }
      VLR_ASSIGN_OR_RETURN(const auto far, far_from_known(seed, contents));
      if (!far) return e;
      VLR_ASSIGN_OR_RETURN(const bool is_right,
                           is_right_in_row(open, seed, contents, far->worst_index));
      if (!is_right) return *far;
      distrusted_.insert(other);
      known_.label.clear();
    }
  }

  /// The first implementation of the list that takes the shape, is not this one and was not found
  /// wrong; empty: there is none but the reference.
  std::string yardstick(size_t open) const {
    for (const std::string& name : takers()) {
      if (name != opened_[open].label && name != "reference" && name != "cublaslt_fast" &&
          !distrusted_.contains(name))
        return name;
    }
    return {};
  }

  /// Whole outputs as an implementation gave them, of fresh operands.
  struct Known {
    std::string label;  ///< whose; empty: nothing is known
    uint64_t seed = 0;
    Contents contents = Contents::kNormal;
    std::vector<Tensor> outputs;  ///< operands that outputs are in, copied to where they are
    std::vector<std::vector<std::byte>> memory;  ///< of the copies on the host
  };
  bool knows(uint64_t seed, Contents contents) const {
    return !known_.label.empty() && known_.seed == seed && known_.contents == contents;
  }
  /// False where it fails.
  bool know(const std::string& name, uint64_t seed, Contents contents) {
    if (knows(seed, contents) && known_.label == name) return true;
    auto it = yardsticks_.find(name);
    if (it == yardsticks_.end()) {
      const Result<size_t> opened = open(name);
      if (!opened.ok()) return false;
      it = yardsticks_.emplace(name, *opened).first;
    }
    return run_on_fresh(it->second, seed, contents).ok() && keep(it->second, seed, contents).ok();
  }
  Status keep(size_t open, uint64_t seed, Contents contents) {
    const std::vector<Tensor>& outputs = sets_[0].outputs;
    known_.outputs.resize(outputs.size());
    known_.memory.resize(outputs.size());
    known_.label.clear();
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Tensor from = operand_of(outputs[i]);
      Tensor& to = known_.outputs[i];
      if (!machine_.gpu) {
        known_.memory[i].assign(from.template as<std::byte>(),
                                from.template as<std::byte>() + from.bytes());
        to = from;
        to.data = known_.memory[i].data();
        continue;
      }
      if (!to.data) {
        to = from;
        to.data = machine_.gpu->allocate(from.bytes());
      }
      VLR_RETURN_IF_ERROR(machine_.gpu->copy(to.data, from.data, from.bytes()));
    }
    known_.label = opened_[open].label;
    known_.seed = seed;
    known_.contents = contents;
    return {};
  }
  Tensor operand_of(const Tensor& output) const {
    for (const Operands::Named& n : operands_[0]->all()) {
      if (is_in(output, n.tensor)) return n.tensor;
    }
    return output;  // of no elements
  }

  /// Outputs of set 0 that are further from what is known than both may be from the reference. None,
  /// too, where nothing is known of these operands. Its worst_index is a row of the output.
  Result<std::optional<Errors>> far_from_known(uint64_t seed, Contents contents) {
    if (!knows(seed, contents)) return std::optional<Errors>();
    for (size_t i = 0; i < known_.outputs.size(); ++i) {
      const Tensor &t = sets_[0].outputs[i], &copy = known_.outputs[i], operand = operand_of(t);
      if (t.numel() == 0) continue;
      const Tolerance one = i == 0 ? Op::tolerance(sets_[0].args) : kNear;
      const int64_t begin = t.template as<std::byte>() - operand.template as<std::byte>();
      const auto row_of = [&](int64_t offset) {
        return t.rank > 0 && t.stride(0) > 0 ? offset / t.stride(0) : 0;
      };
      Errors e;
      if (machine_.gpu) {
        VLR_ASSIGN_OR_RETURN(const int64_t at, machine_.gpu->first_difference(operand, copy, one));
        if (at < 0) continue;
        e.elements = t.numel();
        e.wrong = 1;
        e.worst_index = row_of(at - begin / dtype_bytes(t.dtype));
        e.worst_at = "element " + std::to_string(at) + " of " + std::to_string(operand.numel()) +
                     " is the first one";
      } else {
        Tensor other = t;
        other.data = copy.template as<std::byte>() + begin;
        const Tolerance both = {.rel = 2 * one.rel, .abs = 2 * one.abs};  // each may be off by one
        e = compare_values(values_of(t), values_of(other), t, both, {}, {}, known_.label);
        if (e.wrong == 0) continue;
        e.worst_index = e.worst_index * t.dim(0) / t.numel();
      }
      if (i > 0) e.worst_at = "output " + std::to_string(i) + e.worst_at;
      e.other = "yardstick " + known_.label;
      return std::optional(std::move(e));
    }
    return std::optional<Errors>();
  }

  /// Whether the reference agrees in this row of the outputs, where it can compute it alone, and soon.
  Result<bool> is_right_in_row(size_t open, uint64_t seed, Contents contents, int64_t row) {
    const Setup<Op>& s = sets_[0];
    if (!s.rows || s.num_rows != s.outputs[0].dim(0)) return false;
    if (cost().flops / static_cast<double>(s.num_rows) > 1e9) return false;
    operands_[0]->refill(seed, contents);
    Want want;
    VLR_RETURN_IF_ERROR(
        make_want(want, 0, [row](const Setup<Op>& h) { return std::vector{h.rows(row, 1)}; }));
    VLR_RETURN_IF_ERROR(run_on_fresh(open, seed, contents));
    VLR_ASSIGN_OR_RETURN(const Errors e, compare(want));
    return e.wrong == 0;
  }

  /// Of what the set holds now.
  Status make_want(Want& want, size_t set, const Which& which) {
    want.set = set;
    VLR_RETURN_IF_ERROR(machine_.finish());
    MirrorOperands copy(machine_.gpu.get(), *operands_[set]);
    const Setup<Op> host = make_(copy, shape_);
    VLR_RETURN_IF_ERROR(machine_.finish());
    const std::vector<Part<Op>> parts = which(host);
    Context ctx;
    ctx.threads = &machine_.threads;
    // Inputs of the output's shape, to show beside a wrong element, before anything is changed.
    for (const Operands::Named& n : copy.all()) {
      const Tensor& t = n.tensor;
      const bool alike = n.kind != Operands::Kind::kOutput && t.rank == host.outputs[0].rank &&
                         t.dims == host.outputs[0].dims && parts.size() == 1 &&
                         parts[0].outputs[0].dims == t.dims;
      if (alike && is_float(t.dtype)) want.inputs.emplace_back(n.name, values_of(t));
    }
    want.outputs.resize(host.outputs.size());
    for (const Part<Op>& part : parts) {
      Status s{Code::kInternal, "there is no reference"};
      for (const Impl<Op>& impl : Op::impls()) {
        if (impl.name == "reference") s = impl.run(part.args, ctx);
      }
      VLR_RETURN_IF_ERROR(s.with_context("reference"));
      for (size_t i = 0; i < part.outputs.size(); ++i) {
        Tensor t = part.outputs[i];
        auto& [tensors, values] = want.outputs[i];
        const std::vector<float> own = values_of(t);
        values.insert(values.end(), own.begin(), own.end());
        t.data = counterpart(copy, t.template as<std::byte>(), set);
        t.device = machine_.device();
        tensors.push_back(t);
      }
    }
    want.tolerance = Op::tolerance(sets_[0].args);
    return {};
  }

  /// Where an output is an input, too, timed launches have gone on from what earlier ones left, which
  /// nobody knows, and which may have stopped to change. So some launches go on from fill()'s operands,
  /// and the next one is held against the reference of what they left.
  Status check_next_launch(size_t open) {
    constexpr int kLaunches = 8;
    for (const size_t set : std::set{size_t{0}, operands_.size() - 1, chosen_set_}) {
      operands_[set]->refill(set + kSeed);
      VLR_RETURN_IF_ERROR(machine_.finish());
      const auto at = static_cast<int64_t>(set);
      for (int i = 0; i < kLaunches; ++i) VLR_RETURN_IF_ERROR(launch(open, at));
      Want want;
      VLR_RETURN_IF_ERROR(make_want(want, set, few(set)));
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
      return n.kind == Operands::Kind::kOutput && (is_in(t, n.tensor) || p == n.tensor.data);
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
    Errors out;
    for (size_t i = 0; i < want.outputs.size(); ++i) {
      const auto& [parts, values] = want.outputs[i];
      std::vector<float> got;
      for (const Tensor& t : parts) {
        VLR_ASSIGN_OR_RETURN(const std::vector<float> own, read(t));
        got.insert(got.end(), own.begin(), own.end());
      }
      const auto place = [&](size_t at) { return place_of(at, parts, sets_[want.set].outputs[i]); };
      if (i == 0) {
        out = compare_values(got, values, parts[0], want.tolerance, want.inputs, place);
        continue;
      }
      const Errors e = compare_values(got, values, parts[0], kNear, {}, place);
      if (e.wrong == 0) continue;
      out.wrong += e.wrong;
      out.worst_at = "output " + std::to_string(i) + e.worst_at;
    }
    return out;
  }

  /// Elements of the first output that are still NaN, all inputs being finite.
  Status count_unwritten(Errors& e) {
    constexpr int64_t kAtOnce = int64_t{1} << 24;  // elements: so that no copy is large
    const Tensor& t = sets_[0].outputs[0];
    if (works_in_place() || !is_float(t.dtype) || t.numel() == 0) return {};
    const int64_t rows = t.dim(0), step = std::max<int64_t>(1, kAtOnce / (t.numel() / rows));
    for (int64_t begin = 0; begin < rows; begin += step) {
      VLR_ASSIGN_OR_RETURN(const std::vector<float> values,
                           read(t.slice(0, begin, std::min(step, rows - begin))));
      e.wrong += std::ranges::count_if(values, [](float v) { return std::isnan(v); });
    }
    if (e.wrong > 0) e.worst_at = "elements of the output are as they were before the launch";
    return {};
  }

  Machine& machine_;
  const MakeSetup<Op>& make_;
  Shape shape_;
  Placement place_;
  Data current_;  // what operands are filled with now
  std::vector<std::unique_ptr<Operands>> operands_;
  std::vector<Setup<Op>> sets_;
  std::vector<Opened> opened_;
  std::map<std::tuple<uint64_t, Contents, bool>, Want> wants_;
  std::map<size_t, Filled> filled_;  // the first set, the last one and the chosen one
  Known known_;
  std::map<std::string, size_t> yardsticks_;  // that are open
  std::set<std::string> distrusted_;          // yardsticks that were found wrong
  std::mt19937_64 places_;
  size_t chosen_set_ = 0;
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
