/// One benchmark of one implementation of an op at one shape: verified, then timed, then held
/// against the machine's roofline.
#ifndef VLR_BENCH_SUPPORT_OP_BENCH_H_
#define VLR_BENCH_SUPPORT_OP_BENCH_H_

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/support/roofline.h"
#include "kernels/core/load.h"
#include "kernels/core/op.h"

namespace vlr::bench {

/// The machine that a bench program runs on, made once in main().
struct Machine {
  explicit Machine(int num_threads) : threads(num_threads), peak(measure_peak(threads)) {
    benchmark::AddCustomContext("threads", std::to_string(threads.num_threads()));
    benchmark::AddCustomContext("target", peak.target);
    benchmark::AddCustomContext("peak_gflops", std::to_string(peak.flops * 1e-9));
    benchmark::AddCustomContext("peak_gbytes", std::to_string(peak.bytes * 1e-9));
  }
  ThreadPool threads;
  Peak peak;
};

/// Owns operands; 64-byte aligned, contiguous.
class Operands {
 public:
  Tensor random(std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    const Tensor t = uninitialised(dims, dtype);
    // Values repeat with a period that no shape shares: making them must not take longer than
    // timing.
    std::vector<float> values(9973);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(rng_);
    for (int64_t i = 0; i < t.numel(); ++i)
      store_f32(t, i, values[static_cast<size_t>(i) % values.size()]);
    return t;
  }
  Tensor uninitialised(std::initializer_list<int64_t> dims, DType dtype = DType::kF32) {
    Tensor t(nullptr, dtype, dims);
    memory_.emplace_back(std::aligned_alloc(64, static_cast<size_t>((t.bytes() + 127) / 64 * 64)),
                         std::free);
    t.data = memory_.back().get();
    return t;
  }

 private:
  std::mt19937 rng_{1};
  std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
};

/// Runs `impl` on args once and compares `output` with what the reference leaves there for
/// `reference_args`: the same operands, or the first few rows of them where the reference is slow.
template <class Op>
Status verify(const Impl<Op>& impl, const typename Op::Args& args,
              const typename Op::Args& reference_args, const Tensor& output, Context& ctx) {
  VLR_RETURN_IF_ERROR(Op::check(args));
  VLR_RETURN_IF_ERROR(impl.run(args, ctx));
  const int64_t n = output.numel();
  std::vector<float> got(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) got[static_cast<size_t>(i)] = load_f32(output, i);
  for (const Impl<Op>& reference : Op::impls()) {
    if (reference.name == "reference") VLR_RETURN_IF_ERROR(reference.run(reference_args, ctx));
  }
  const Tolerance tolerance = Op::tolerance(args);
  for (int64_t i = 0; i < n; ++i) {
    const double want = load_f32(output, i), y = static_cast<double>(got[static_cast<size_t>(i)]);
    if (!(std::fabs(y - want) <= tolerance.rel * std::fabs(want) + tolerance.abs)) {
      return {Code::kInternal, std::string(impl.name) + " differs from the reference at element " +
                                   std::to_string(i)};
    }
  }
  return {};
}

/// Operands made anew for each benchmark, when it runs.
template <class Op>
struct Setup {
  typename Op::Args args, reference_args;
  Tensor output;  // contiguous, of reference_args
};

/// Registers "op/implementation/shape".
template <class Op>
void add_bench(Machine& machine, const Impl<Op>& impl, const std::string& shape,
               std::function<Setup<Op>(Operands&)> make) {
  const std::string name = std::string(Op::kName) + "/" + std::string(impl.name) + "/" + shape;
  benchmark::RegisterBenchmark(
      name.c_str(),
      [&machine, &impl, make](benchmark::State& state) {
        Operands operands;
        const Setup<Op> setup = make(operands);
        Context ctx;
        ctx.threads = &machine.threads;
        const int64_t bytes = impl.workspace ? impl.workspace(setup.args, ctx) : 0;
        ctx.workspace = {operands.uninitialised({bytes}, DType::kU8).template as<std::byte>(),
                         static_cast<size_t>(bytes)};
        if (Status s = verify(impl, setup.args, setup.reference_args, setup.output, ctx); !s.ok()) {
          return state.SkipWithError(s.message().c_str());
        }
        for (auto _ : state) {
          if (!impl.run(setup.args, ctx).ok())
            return state.SkipWithError("failed after it was verified");
          benchmark::ClobberMemory();
        }
        const Cost cost = Op::cost(setup.args);
        const auto per_second = [&](double amount) {
          return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
        };
        state.counters["GFLOP/s"] = per_second(cost.flops * 1e-9);
        state.counters["GB/s"] = per_second(cost.bytes * 1e-9);
        state.counters["roof_pct"] = per_second(100 * roof_seconds(cost, machine.peak));
      })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

/// main() of a bench program: `register_all` names the benches, the command line is Google
/// Benchmark's.
inline int run_benches(int argc, char** argv, const std::function<void(Machine&)>& register_all) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  Machine machine(0);
  register_all(machine);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_OP_BENCH_H_
