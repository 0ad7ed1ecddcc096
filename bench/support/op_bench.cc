#include "bench/support/op_bench.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace vlr::bench {
namespace {

/// Takes --name=VALUE out of the command line; empty if it is not there.
std::string take_option(int& argc, char** argv, std::string_view name) {
  const std::string start = "--" + std::string(name) + "=";
  std::string value;
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(start)) {
      value = argument.substr(start.size());
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

std::string decimals(double v) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", v);
  return text;
}

int fail(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  return 1;
}

}  // namespace

int run_benches(int argc, char** argv, const std::function<void(Machine&)>& register_all) {
  const std::string device = take_option(argc, argv, "device");
  std::string commit = take_option(argc, argv, "commit");
  if (const char* from_environment = std::getenv("VLR_COMMIT"); commit.empty() && from_environment)
    commit = from_environment;
  bool lists = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    lists |= argument.starts_with("--benchmark_list_tests") && !argument.ends_with("=false");
    if (argument == "--help")
      std::printf(
          "%s: benches of one op\n  --device=cpu|cuda   cuda where there is a GPU\n"
          "  --commit=HASH       for the result's context; else VLR_COMMIT\n\n",
          argv[0]);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  if (!device.empty() && device != "cpu" && device != "cuda")
    return fail("--device must be cpu or cuda, got " + device);

  Machine machine{device == "cpu" ? nullptr : Gpu::open(), ThreadPool(), {}};
  if (device == "cuda" && !machine.is_gpu()) return fail("--device=cuda, but there is no GPU");
  if (lists) {
    register_all(machine);
    return benchmark::RunSpecifiedBenchmarks() > 0 ? 0 : 2;
  }
  if (machine.is_gpu()) {
    auto peak = machine.gpu->measure_peak();
    if (!peak.ok()) return fail(peak.error().message());
    machine.peak = *peak;
    for (const auto& [key, value] : machine.gpu->description())
      benchmark::AddCustomContext(key, value);
  } else {
    machine.peak = measure_peak(machine.threads);
    benchmark::AddCustomContext("threads", std::to_string(machine.threads.num_threads()));
  }
  benchmark::AddCustomContext("commit", commit.empty() ? "unknown" : commit);
  benchmark::AddCustomContext("peak_by", machine.peak.target);
  benchmark::AddCustomContext("peak_gflops", decimals(machine.peak.flops * 1e-9));
  benchmark::AddCustomContext("peak_gbytes", decimals(machine.peak.bytes * 1e-9));
  register_all(machine);
  if (benchmark::RunSpecifiedBenchmarks() == 0) return 2;  // which says so
  if (failures.empty()) return 0;
  return fail(std::to_string(failures.size()) + " benches FAILED");
}

}  // namespace vlr::bench
