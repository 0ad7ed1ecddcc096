#include "tools/workload_result.h"

#include <fmt/format.h>

#include <cmath>

namespace vlr::tools {
namespace {

using nlohmann::ordered_json;

double gib(int64_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024 * 1024); }

}  // namespace

double WorkloadResult::at(double share) const {
  return seconds[static_cast<size_t>(std::lround(share * static_cast<double>(seconds.size() - 1)))];
}

ordered_json to_json(const WorkloadResult& r) {
  ordered_json row = {{"name", r.name},
                      {"run_name", r.name},
                      {"run_type", "iteration"},
                      {"repetitions", 1},
                      {"repetition_index", 0},
                      {"threads", 1},
                      {"iterations", r.runs()},
                      {"real_time", 1e3 * r.median()},
                      {"cpu_time", 1e3 * r.median()},
                      {"time_unit", "ms"},
                      {"TFLOP/s", r.tflops_per_second()},
                      {"p10_ms", 1e3 * r.at(0.1)},
                      {"p90_ms", 1e3 * r.at(0.9)},
                      {"min_ms", 1e3 * r.seconds.front()},
                      {"max_ms", 1e3 * r.seconds.back()},
                      {"pairs/s", r.pairs_per_second()},
                      {"tokens/s", r.tokens_per_second()},
                      {"pairs", r.spec.pairs()},
                      {"tokens", r.spec.tokens()},
                      {"tokens_run", r.spec.tokens_run()},
                      {"patches", r.spec.patches()},
                      {"replayed_batches", r.replayed_batches},
                      {"same_bits", r.same_bits},
                      {"finite", r.finite},
                      {"peak_gib", gib(r.peak_bytes)},
                      {r.on_gpu ? "card_gib" : "process_gib", gib(r.used_bytes)}};
  if (r.peak.flops > 0) row["peak_pct"] = r.peak_pct();
  if (r.readings.mhz_mean > 0) {
    row["sm_mhz"] = r.readings.mhz_mean;
    row["sm_mhz_least"] = r.readings.mhz_least;
    row["celsius"] = r.readings.celsius;
    row["throttled_by"] = r.readings.reason_names();
  }
  if (r.readings.watts > 0) {
    row["watts"] = r.readings.watts;
    row["joules_per_pair"] = r.joules_per_pair();
  }
  if (r.disk.bytes > 0) {
    row["disk_gib"] = gib(r.disk.bytes) / r.runs();
    row["disk_gb_per_s"] = gb_per_second(r.disk.bytes, r.disk.reading_seconds);
    row["disk_wait_ms"] = 1e3 * r.disk.waiting_seconds / r.runs();
  }
  ordered_json& parts = row["memory_bytes"] = ordered_json::object();
  for (const auto& [purpose, bytes] : r.memory) parts[purpose] = bytes;
  row["observed_ms"] = 1e3 * r.observed_seconds;
  row["nodes_ms"] = 1e3 * r.nodes_seconds;
  row["ops"] = times_json(r.ops, r.nodes_seconds);
  row["places"] = times_json(r.places, r.nodes_seconds);
  return row;
}

void print(const WorkloadResult& r) {
  fmt::print("\n{}: {} pairs, {} tokens ({} run)", r.spec.name, r.spec.pairs(), r.spec.tokens(),
             r.spec.tokens_run());
  if (r.spec.images) fmt::print(", {} patches", r.spec.patches());
  fmt::print(
      "\n  {:.3f} ms, median of {} ({:.3f} to {:.3f}); {:.1f} pairs/s, {:.0f} tokens/s, "
      "{:.4g} TFLOP/s",
      1e3 * r.median(), r.runs(), 1e3 * r.seconds.front(), 1e3 * r.seconds.back(),
      r.pairs_per_second(), r.tokens_per_second(), r.tflops_per_second());
  if (r.peak.flops > 0) fmt::print(", {:.1f}% of the peak", r.peak_pct());
  fmt::print("\n  memory {:.2f} GiB, {} {:.2f} GiB{}\n", gib(r.peak_bytes),
             r.on_gpu ? "the whole card" : "the process", gib(r.used_bytes),
             r.replayed_batches > 0
                 ? fmt::format("; {} of its batches replayed", r.replayed_batches)
                 : "");
  if (r.readings.watts > 0)
    fmt::print("  {:.0f} W, {:.3g} J a pair, {} MHz, {} C{}{}\n", r.readings.watts,
               r.joules_per_pair(), r.readings.mhz_mean, r.readings.celsius,
               r.readings.reasons != 0 ? ", held back by " : "", r.readings.reason_names());
  if (r.disk.bytes > 0)
    fmt::print("  from disk {:.2f} GiB a run at {:.2f} GB/s, waited for {:.3f} ms\n",
               gib(r.disk.bytes) / r.runs(), gb_per_second(r.disk.bytes, r.disk.reading_seconds),
               1e3 * r.disk.waiting_seconds / r.runs());
  fmt::print("  op by op {:.3f} ms, of that in nodes {:.3f} ms:\n", 1e3 * r.observed_seconds,
             1e3 * r.nodes_seconds);
  print_times(r.ops, r.nodes_seconds, r.ops.size());
}

void print_table(std::span<const WorkloadResult> results) {
  fmt::print("\n{:<14} {:>6} {:>7} {:>11} {:>9} {:>10} {:>8} {:>8} {:>9}\n", "workload", "pairs",
             "tokens", "ms", "pairs/s", "tokens/s", "TFLOP/s", "of peak", "GiB");
  for (const WorkloadResult& r : results) {
    fmt::print("{:<14} {:>6} {:>7} {:>11.3f} {:>9.1f} {:>10.0f} {:>8.4g} {:>8} {:>9.2f}\n",
               r.name.substr(r.name.rfind('/') + 1), r.spec.pairs(), r.spec.tokens(),
               1e3 * r.median(), r.pairs_per_second(), r.tokens_per_second(), r.tflops_per_second(),
               r.peak.flops > 0 ? fmt::format("{:.1f}%", r.peak_pct()) : "-", gib(r.peak_bytes));
  }
}

}  // namespace vlr::tools
