/// vlr quantize: a checkpoint -> the same with its linear layers in 8 or 4 bits.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "engine/api/quantize_checkpoint.h"
#include "engine/placement/prepared_model.h"
#include "kernels/core/format_bytes.h"
#include "tools/common.h"

namespace vlr::tools {
namespace {

struct QuantizeCommand {
  ModelOptions model;
  std::string out;
  bool probe = true, verify = true, force = false;
  int run();
};

Result<std::vector<float>> run_probe(const std::string& folder, const Options& options) {
  VLR_ASSIGN_OR_RETURN(Reranker reranker, open_with_bar(folder, options));
  return probe_log_odds(reranker);
}

/// Mean distance of log-odds.
double mean_distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::fabs(static_cast<double>(a[i] - b[i]));
  return sum / static_cast<double>(a.size());
}

int QuantizeCommand::run() {
  if (const Status s = model.finish(); !s.ok()) return fail(s);
  Options plain = model.options;
  plain.quant.clear();
  plain.quant_rules.clear();
  const auto rules = quant_rules(model.options);
  if (!rules) return fail(rules.error());
  QuantizeOptions options;
  options.force = force;
  std::vector<float> before, decoded;
  if (probe) {
    options.probe = [&](const std::string& folder) -> Result<std::vector<float>> {
      auto scores = run_probe(folder, decoding_options(plain, *rules));
      if (!scores) return scores.error().with_context("the weights that were written, decoded");
      return decoded = *std::move(scores);
    };
  }
  const bool terminal = isatty(STDERR_FILENO) != 0;
  int64_t shown = -1;
  options.progress = [&](int64_t done, int64_t total) {
    const int64_t percent = total > 0 ? 100 * done / total : 100;
    if (!terminal || percent == shown) return;
    shown = percent;
    tell("\r{:>11} / {}", format_bytes(done), format_bytes(total));
  };
  ThreadPool threads(model.options.num_threads);
  const auto start = std::chrono::steady_clock::now();
  const Status written = quantize_checkpoint(model.model, out, *rules, options, threads);
  if (shown >= 0) tell("\n");
  if (!written.ok()) return fail(written);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{}: written in {:.1f} s\n", printable(out), seconds);
  if (!verify) return kServed;
  // Opening it runs every check that any later opening will.
  plain.self_check = true;
  if (!probe) {
    const auto reranker = open_with_bar(out, plain);
    if (!reranker) return fail(reranker.error());
    fmt::print("opened as {}: its checks pass\n", reranker->quant());
    return kServed;
  }
  const auto after = run_probe(out, plain);
  if (!after) return fail(after.error());
  // What the format costs is for information, and the model as it is may be too large to run here.
  const auto original = run_probe(model.model, plain);
  if (original) before = *original;
  fmt::print(
      "its checks pass; log-odds of the relevance probe by the model as it is, by the weights that "
      "were written, decoded, and by the model as it opens:\n");
  for (size_t i = 0; i < decoded.size(); ++i) {
    fmt::print("  {} {:>+8.3f} {:>+8.3f}\n",
               before.empty() ? "       ?" : fmt::format("{:>+8.3f}", before[i]), decoded[i],
               (*after)[i]);
  }
  if (original) {
    fmt::print("{:.2f} from the model as it is, on average: what the format costs\n",
               mean_distance(*after, before));
  } else {
    fmt::print("the model as it is was not asked: {}\n", original.error().message());
  }
  return kServed;
}

}  // namespace

void add_quantize(CLI::App& app, Run& run) {
  auto command = std::make_shared<QuantizeCommand>();
  app.add_option("-m,--model", command->model.model,
                 "Checkpoint folder: config.json, tokenizer.json, safetensors")
      ->required();
  app.add_option("--out", command->out, "Folder to write")->required();
  app.add_flag_callback(
      "--no-probe", [command] { command->probe = false; },
      "Keep no scores of what was written; it then need not run");
  app.add_flag("--force", command->force, "Replace what else is in the folder to write");
  app.add_flag_callback(
      "--no-verify", [command] { command->verify = false; }, "Do not open what was written");
  command->model.add_options_to(app, kRunsModel, kVisionCache);
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
