/// vlr quantize: a checkpoint -> the same with its linear layers in 8 or 4 bits.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>

#include "engine/api/quantize_checkpoint.h"
#include "engine/placement/loaded_model.h"
#include "engine/tasks/pair_score.h"
#include "kernels/core/format_bytes.h"
#include "tools/common.h"

namespace vlr::tools {
namespace {

struct QuantizeCommand {
  ModelOptions model;
  std::string out;
  bool probe = true, verify = true;
  int run();
};

/// Log-odds of the relevance probe's documents.
Result<std::vector<float>> run_probe(const std::string& folder, const Options& options) {
  VLR_ASSIGN_OR_RETURN(Reranker reranker, open_with_bar(folder, options));
  std::vector<float> out;
  const std::vector<Request> requests = pair_score().probe();
  VLR_ASSIGN_OR_RETURN(const std::vector<Response> responses, reranker.score(requests));
  for (const Response& response : responses) {
    for (const DocumentResult& r : response.results) {
      if (!r.scored()) return {Code::kDataLoss, "relevance probe: " + r.message};
      out.push_back(r.log_odds);
    }
  }
  return out;
}

int QuantizeCommand::run() {
  if (const Status s = model.finish(); !s.ok()) return fail(s);
  Options plain = model.options;
  plain.quant.clear();
  plain.quant_rules.clear();
  const auto rules = quant_rules(model.options);
  if (!rules) return fail(rules.error());
  std::vector<float> before;
  QuantizeOptions options;
  if (probe) {
    options.probe = [&]() -> Result<std::vector<float>> {
      auto scores = run_probe(model.model, plain);
      if (!scores) return scores.error().with_context("the model as it is");
      return before = *std::move(scores);
    };
  }
  const bool terminal = isatty(STDERR_FILENO) != 0;
  int64_t shown = -1;
  options.progress = [&](int64_t done, int64_t total) {
    const int64_t percent = total > 0 ? 100 * done / total : 100;
    if (!terminal || percent == shown) return;
    shown = percent;
    fmt::print(stderr, "\r{:>11} / {}", format_bytes(done), format_bytes(total));
  };
  ThreadPool threads(model.options.num_threads);
  const auto start = std::chrono::steady_clock::now();
  const Status written = quantize_checkpoint(model.model, out, *rules, options, threads);
  if (shown >= 0) fmt::print(stderr, "\n");
  if (!written.ok()) return fail(written);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{}: written in {:.1f} s\n", out, seconds);
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
  fmt::print("its checks pass; log-odds of the relevance probe, before and after:\n");
  for (size_t i = 0; i < before.size(); ++i)
    fmt::print("  {:>+8.3f} {:>+8.3f}\n", before[i], (*after)[i]);
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
      "Keep no scores of the model as it is; it then need not run");
  app.add_flag_callback(
      "--no-verify", [command] { command->verify = false; }, "Do not open what was written");
  command->model.add_options_to(app, kRunsModel, kVisionCache);
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
