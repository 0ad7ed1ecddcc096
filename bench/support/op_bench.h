/// Benchmarks of an op's implementations at one shape: each verified, then timed, then held against
/// the machine's roofline.
///
/// On the host operands are as warm as the loop leaves them. On a GPU a bench rotates among sets of
/// operands that together are several times the L2, so that each launch finds its own cold.
#ifndef VLR_BENCH_SUPPORT_OP_BENCH_H_
#define VLR_BENCH_SUPPORT_OP_BENCH_H_

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "bench/support/gpu.h"
#include "bench/support/operands.h"
#include "bench/support/roofline.h"
#include "kernels/core/load.h"
#include "kernels/core/op.h"
#include "kernels/quant/eight_bit.h"

namespace vlr::bench {

/// What a bench program runs on, made once in run_benches(): a GPU, or the host and all its
/// threads.
struct Machine {
  std::unique_ptr<Gpu> gpu;  ///< null: the host
  ThreadPool threads;
  Peak peak;

  Device device() const { return gpu ? Device::kCuda : Device::kCpu; }
  bool is_gpu() const { return gpu != nullptr; }
};

/// One op at one shape.
template <class Op>
struct Setup {
  typename Op::Args args;
  /// What the reference computes: the same, or a few of its rows where the reference is slow.
  typename Op::Args reference_args;
  Tensor output;  ///< of reference_args: what is compared, up to three axes of any stride
};

/// Makes the operands, the same ones each time; what else args point to has to outlive the
/// function.
template <class Op>
using MakeSetup = std::function<Setup<Op>(Operands&)>;

/// The last `count` rows of an operand, or all of them if there are fewer: reference_args in short.
template <class TensorLike>
TensorLike last_rows(const TensorLike& t, int64_t count = 4) {
  if (!t.defined()) return t;
  const int64_t n = std::min(count, t.dim(0));
  return t.slice(0, t.dim(0) - n, n);
}

// Details of add_benches().

/// Calls body(offset in elements) for every element of a tensor of up to three axes.
template <class Body>
void for_each_element(const Tensor& t, Body&& body) {
  const auto size = [&](int axis) { return axis < t.rank ? t.dim(axis) : 1; };
  const auto stride = [&](int axis) { return axis < t.rank ? t.stride(axis) : 0; };
  for (int64_t i = 0; i < size(0); ++i) {
    for (int64_t j = 0; j < size(1); ++j) {
      for (int64_t k = 0; k < size(2); ++k) body(i * stride(0) + j * stride(1) + k * stride(2));
    }
  }
}

inline std::vector<float> values(const Tensor& t) {
  std::vector<float> out;
  for_each_element(t, [&](int64_t at) {
    out.push_back(t.dtype == DType::kI8       ? static_cast<float>(t.as<int8_t>()[at])
                  : t.dtype == DType::kF8E4M3 ? e4m3_to_f32(t.as<uint8_t>()[at])
                                              : load_f32(t, at));
  });
  return out;
}

/// kInternal with the first element that is too far from the reference, or without a reference.
inline Status check_values(std::string_view impl, const std::vector<float>& got,
                           const std::vector<float>& want, const Tolerance& tolerance) {
  if (want.size() != got.size()) return {Code::kInternal, "the reference failed"};
  for (size_t i = 0; i < got.size(); ++i) {
    const double y = static_cast<double>(got[i]), ref = static_cast<double>(want[i]);
    const bool same = y == ref || (std::isnan(y) && std::isnan(ref)) ||
                      (std::isfinite(ref) &&
                       std::fabs(y - ref) <= tolerance.rel * std::fabs(ref) + tolerance.abs);
    if (!same) {
      return {Code::kInternal, std::string(impl) + " differs from the reference at element " +
                                   std::to_string(i) + ": " + std::to_string(y) + " for " +
                                   std::to_string(ref)};
    }
  }
  return {};
}

template <class Op>
std::vector<float> reference_values(const Setup<Op>& setup, ThreadPool& threads) {
  Context ctx;
  ctx.threads = &threads;
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.name == "reference" && !impl.run(setup.reference_args, ctx).ok()) return {};
  }
  return values(setup.output);
}

/// What the implementations of an op share at one shape.
template <class Op>
struct Case {
  MakeSetup<Op> make;
  std::vector<float> want;         ///< the reference's output, once it was needed
  std::set<std::string> verified;  ///< implementations
};

inline void report(benchmark::State& state, const Cost& cost, const Peak& peak, double seconds) {
  state.counters["TFLOP/s"] = cost.flops / seconds * 1e-12;
  state.counters["GB/s"] = cost.bytes / seconds * 1e-9;
  state.counters["roof_pct"] = 100 * roof_seconds(cost, peak) / seconds;
}

/// Why benches of this program failed: with any, run_benches() ends with 1.
inline std::vector<std::string> failures;

inline void skip(benchmark::State& state, const Status& why) {
  failures.push_back(why.message());
  state.SkipWithError(why.message().c_str());
}

/// Nothing is as fast as that, whatever came out of a cache: the work was not done.
inline Status check_speed(const Cost& cost, const Peak& peak, double seconds) {
  constexpr double kMost = 40;  // times the roof, which is that of memory: caches are faster
  const double times = roof_seconds(cost, peak) / seconds;
  if (times <= kMost) return {};
  return {Code::kInternal, "took " + std::to_string(seconds * 1e6) + " us, 1/" +
                               std::to_string(static_cast<int64_t>(times)) +
                               " of what the machine needs for it: it does not do the work"};
}
constexpr uint64_t kOtherSeed = 77;

template <class Op>
void bench_on_host(benchmark::State& state, Machine& machine, const Impl<Op>& impl, Case<Op>& c) {
  HostOperands operands;
  const Setup<Op> setup = c.make(operands);
  Context ctx;
  ctx.threads = &machine.threads;
  if (!ops::supports(impl, setup.args, ctx))
    return skip(state, ops::unsupported(Op::kName, impl.name, ctx.device));
  const int64_t bytes = impl.workspace ? impl.workspace(setup.args, ctx) : 0;
  ctx.workspace = {operands.uninitialised({bytes}, DType::kU8).template as<std::byte>(),
                   static_cast<size_t>(bytes)};
  const auto verify = [&]() -> Status {
    VLR_RETURN_IF_ERROR(Op::check(setup.args));
    VLR_RETURN_IF_ERROR(impl.run(setup.args, ctx));
    if (c.want.empty()) {
      HostOperands same;  // the first ones may have changed: some ops work in place
      c.want = reference_values(c.make(same), machine.threads);
    }
    return check_values(impl.name, values(setup.output), c.want, Op::tolerance(setup.args));
  };
  if (!c.verified.contains(std::string(impl.name))) {
    if (Status s = verify(); !s.ok()) return skip(state, s);
    c.verified.emplace(impl.name);
  }
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    if (const Status s = impl.run(setup.args, ctx); !s.ok()) {
      return skip(state, s.with_context("after it was verified"));
    }
    benchmark::ClobberMemory();
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const Cost cost = Op::cost(setup.args);
  // What was timed still does the work, at the same addresses, on numbers that it has not seen.
  operands.refill(kOtherSeed);
  Status after = impl.run(setup.args, ctx);
  if (after.ok()) {
    HostOperands same(kOtherSeed);
    after =
        check_values(impl.name, values(setup.output),
                     reference_values(c.make(same), machine.threads), Op::tolerance(setup.args));
  }
  const double seconds =
      elapsed.count() / static_cast<double>(std::max<int64_t>(state.iterations(), 1));
  if (after.ok()) after = check_speed(cost, machine.peak, seconds);
  if (!after.ok()) return skip(state, after.with_context("after it was timed"));
  state.counters["GFLOP/s"] = cost.flops / seconds * 1e-9;
  state.counters["GB/s"] = cost.bytes / seconds * 1e-9;
  state.counters["roof_pct"] = 100 * roof_seconds(cost, machine.peak) / seconds;
}

/// One run of an implementation on the device, against the reference on the host.
template <class Op>
Status verify_on_gpu(Machine& machine, const Impl<Op>& impl, const Setup<Op>& setup,
                     const DeviceOperands& operands, Case<Op>& c, Context& ctx) {
  Gpu& gpu = *machine.gpu;
  VLR_RETURN_IF_ERROR(Op::check(setup.args));
  MirrorOperands mirror(gpu, operands);
  const Setup<Op> host = c.make(mirror);
  VLR_RETURN_IF_ERROR(gpu.finish());
  VLR_RETURN_IF_ERROR(impl.run(setup.args, ctx));
  // The bytes from the first to the last element of the output, as the device left them.
  int64_t span = 0;
  for_each_element(host.output, [&](int64_t at) { span = std::max(span, at + 1); });
  const auto bytes = static_cast<size_t>(span * dtype_bytes(host.output.dtype));
  std::vector<std::byte> copy(bytes);
  gpu.download(copy.data(), mirror.original(host.output.template as<std::byte>()),
               static_cast<int64_t>(bytes));
  VLR_RETURN_IF_ERROR(gpu.finish());
  Tensor got = host.output;
  got.data = copy.data();
  if (c.want.empty()) c.want = reference_values(host, machine.threads);
  return check_values(impl.name, values(got), c.want, Op::tolerance(setup.args));
}

/// Sets whose unavoidable traffic together is five times the L2, in not too much memory.
inline int64_t number_of_sets(const Cost& cost, int64_t bytes, int64_t l2_bytes) {
  constexpr int64_t kMaxBytes = int64_t{16} << 30, kMaxSets = 512;
  const auto for_traffic = static_cast<int64_t>(
      std::ceil(5 * static_cast<double>(l2_bytes) / std::max(cost.bytes, 1.0)));
  return std::clamp<int64_t>(
      std::min({for_traffic, kMaxBytes / std::max<int64_t>(bytes, 1), kMaxSets}), 2, kMaxSets);
}

template <class Op>
Status bench_on_gpu(benchmark::State& state, Machine& machine, const Impl<Op>& impl,
                    const std::string& label, bool exact, Case<Op>& c) {
  Gpu& gpu = *machine.gpu;
  gpu.release_all();
  std::vector<std::unique_ptr<DeviceOperands>> operands;
  std::vector<Setup<Op>> sets;
  const auto add_set = [&] {
    operands.push_back(std::make_unique<DeviceOperands>(gpu, sets.size()));
    sets.push_back(c.make(*operands.back()));
  };
  add_set();
  Context ctx = gpu.context(exact);
  VLR_RETURN_IF_ERROR(gpu.finish());
  if (!ops::supports(impl, sets[0].args, ctx))
    return ops::unsupported(Op::kName, impl.name, ctx.device);
  const int64_t scratch = impl.workspace ? impl.workspace(sets[0].args, ctx) : 0;
  ctx.workspace = {gpu.allocate(scratch), static_cast<size_t>(scratch)};
  VLR_RETURN_IF_ERROR(gpu.finish());
  if (!c.verified.contains(label)) {
    // On another set: measuring leaves anything behind. And first: what is chosen stays chosen.
    add_set();
    VLR_RETURN_IF_ERROR(gpu.finish());
    VLR_RETURN_IF_ERROR(gpu.choose_algorithms(ctx, [&] { return impl.run(sets[1].args, ctx); }));
    VLR_RETURN_IF_ERROR(verify_on_gpu(machine, impl, sets[0], *operands[0], c, ctx));
    c.verified.insert(label);
  }
  const Cost cost = Op::cost(sets[0].args);
  const int64_t num_sets = number_of_sets(cost, operands[0]->bytes(), gpu.l2_bytes());
  while (static_cast<int64_t>(sets.size()) < num_sets) add_set();
  VLR_RETURN_IF_ERROR(gpu.finish());
  VLR_ASSIGN_OR_RETURN(
      const Timing timing,
      gpu.time([&](int64_t set) { return impl.run(sets[static_cast<size_t>(set)].args, ctx); },
               num_sets));
  VLR_RETURN_IF_ERROR(gpu.finish());
  // What was timed still does the work, at the same addresses, on numbers that it has not seen.
  operands[0]->refill(sets.size() + kOtherSeed);
  Case<Op> other{c.make, {}, {}};
  Status after = verify_on_gpu(machine, impl, sets[0], *operands[0], other, ctx);
  if (after.ok()) after = check_speed(cost, machine.peak, timing.median);
  VLR_RETURN_IF_ERROR(after.with_context("after it was timed"));
  for (auto _ : state) state.SetIterationTime(timing.median);
  report(state, cost, machine.peak, timing.median);
  state.counters["p10_us"] = timing.p10 * 1e6;
  state.counters["p90_us"] = timing.p90 * 1e6;
  state.counters["sm_mhz"] = timing.sm_mhz;
  return {};
}

// End of details.

struct BenchOptions {
  bool time_reference = true;  ///< on the host; a GPU has none
};

/// Registers "op/label/shape" for one implementation. `exact` is Gpu::context()'s.
template <class Op>
void add_bench(Machine& machine, const Impl<Op>& impl, const std::string& label, bool exact,
               const std::string& shape, std::shared_ptr<Case<Op>> c) {
  const std::string name = std::string(Op::kName) + "/" + label + "/" + shape;
  auto* b = benchmark::RegisterBenchmark(
      name.c_str(), [&machine, &impl, label, exact, c](benchmark::State& state) {
        if (!machine.is_gpu()) return bench_on_host(state, machine, impl, *c);
        if (Status s = bench_on_gpu(state, machine, impl, label, exact, *c); !s.ok())
          skip(state, s);
      });
  b->Unit(benchmark::kMicrosecond);
  // On a GPU one iteration is the median of all the samples that Gpu::time() takes.
  machine.is_gpu() ? b->UseManualTime()->Iterations(1) : b->UseRealTime();
}

/// Registers every implementation of the machine's device that may support the operands; what the
/// device then refuses is reported as an error of its bench. shape: "dtype/dims".
template <class Op>
void add_benches(Machine& machine, const std::string& shape, MakeSetup<Op> make,
                 const BenchOptions& options = {}) {
  ShapeOperands shapes(machine.device());
  const Setup<Op> setup = make(shapes);
  auto c = std::make_shared<Case<Op>>(Case<Op>{make, {}, {}});
  Context planning;
  planning.device = machine.device();
  for (const Impl<Op>& impl : Op::impls()) {
    if (impl.device != machine.device()) continue;
    if (!ops::supports(impl, setup.args, planning)) continue;
    if (impl.name == "reference" && !options.time_reference) continue;
    add_bench(machine, impl, std::string(impl.name), true, shape, c);
    if (machine.is_gpu() && impl.name == "cublaslt")
      add_bench(machine, impl, "cublaslt_fast", false, shape, c);
  }
}

/// main() of a bench program: `register_all` names the benches. The command line is Google
/// Benchmark's and
///   --device=cpu|cuda   cuda where there is a GPU
///   --commit=HASH       for the result's context; else the environment's VLR_COMMIT
/// Ends with 1 if a bench failed, its values or its time being wrong, and with 2 if the filter
/// matches none.
int run_benches(int argc, char** argv, const std::function<void(Machine&)>& register_all);

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_OP_BENCH_H_
