/// vlr eval: requests with known answers -> ranking quality and distance to expected scores.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/common.h"
#include "tools/evaluation.h"

namespace vlr::tools {
namespace {

namespace fs = std::filesystem;

struct EvalCommand {
  ModelOptions model;
  std::vector<std::string> files;
  std::string json_to;
  int run();
};

int EvalCommand::run() {
  std::vector<EvalFile> sets;
  for (const std::string& path : files) {
    auto set = read_eval(path, !model.options.media_root.empty());
    if (!set) return fail(set.error());
    sets.push_back(*std::move(set));
  }
  auto reranker = model.open();
  if (!reranker) return fail(reranker.error());
  nlohmann::ordered_json out;
  out["model"] = reranker->model_name();
  out["device"] = reranker->device();
  out["dtype"] = reranker->dtype();
  out["quant"] = reranker->quant();
  Metrics total;
  fmt::print("{:<20} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7} {:>10} {:>10} {:>6} {:>6} {:>8} {:>8}\n",
             "file", "requests", "pairs", "failed", "top-1", "MRR", "nDCG", "max dist", "mean dist",
             "top-1*", "order*", "seconds", "pairs/s");
  const auto show = [&](const std::string& name, const Metrics& m) {
    // What a file says nothing of is not 0: nothing of it was measured.
    using Figure = std::optional<double>;
    const auto mean = [](double sum, int64_t count) -> Figure {
      if (count == 0) return {};
      return sum / static_cast<double>(count);
    };
    const auto of_compared = [&](double value) {
      return m.compared > 0 ? Figure(value) : Figure();
    };
    const Figure top1 = mean(m.top1, m.judged), mrr = mean(m.mrr, m.judged),
                 ndcg = mean(m.ndcg, m.judged), farthest = of_compared(m.max_distance),
                 distance = mean(m.sum_distance, m.compared),
                 top1_changes = of_compared(static_cast<double>(m.top1_changes)),
                 order_changes = of_compared(static_cast<double>(m.order_changes));
    const auto cell = [](const Figure& figure, auto format) {
      return figure ? fmt::format(fmt::runtime(format), *figure) : std::string("-");
    };
    fmt::print(
        "{:<20} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7} {:>10} {:>10} {:>6} {:>6} {:>8.3f} {:>8.1f}\n",
        printable(name), m.requests, m.pairs, m.failed, cell(top1, "{:.4f}"), cell(mrr, "{:.4f}"),
        cell(ndcg, "{:.4f}"), cell(farthest, "{:.2e}"), cell(distance, "{:.2e}"),
        cell(top1_changes, "{:.0f}"), cell(order_changes, "{:.0f}"), m.seconds,
        static_cast<double>(m.pairs) / m.seconds);
    const auto or_null = [](const Figure& figure) {
      return figure ? nlohmann::ordered_json(*figure) : nlohmann::ordered_json();
    };
    const auto count_or_null = [&](int64_t count) {
      return m.compared > 0 ? nlohmann::ordered_json(count) : nlohmann::ordered_json();
    };
    out["files"].push_back({{"file", name},
                            {"requests", m.requests},
                            {"pairs", m.pairs},
                            {"failed", m.failed},
                            {"top1", or_null(top1)},
                            {"mrr", or_null(mrr)},
                            {"ndcg", or_null(ndcg)},
                            {"max_distance", or_null(farthest)},
                            {"mean_distance", or_null(distance)},
                            {"top1_changes", count_or_null(m.top1_changes)},
                            {"order_changes", count_or_null(m.order_changes)},
                            {"seconds", m.seconds},
                            {"pairs_per_second", static_cast<double>(m.pairs) / m.seconds}});
  };
  for (const EvalFile& set : sets) {
    Metrics m;
    const auto responses = score_eval(*reranker, set, m);
    if (!responses) return fail(responses.error());
    for (size_t i = 0; i < set.requests.size(); ++i) {
      for (const DocumentResult& r : (*responses)[i].results) {
        if (!r.scored())
          tell("vlr: {}: request {}, document {}: {}\n", printable(set.path), i, r.index,
               printable(r.message));
      }
    }
    show(fs::path(set.path).filename().string(), m);
    total.requests += m.requests, total.pairs += m.pairs, total.failed += m.failed,
        total.judged += m.judged;
    total.top1 += m.top1, total.mrr += m.mrr, total.ndcg += m.ndcg, total.compared += m.compared;
    total.max_distance = std::max(total.max_distance, m.max_distance);
    total.sum_distance += m.sum_distance, total.top1_changes += m.top1_changes,
        total.order_changes += m.order_changes;
    total.seconds += m.seconds;
  }
  if (files.size() > 1) show("all", total);
  fmt::print(
      "\ndist: |log-odds - expected|. *: requests whose best document, or whose order, is not the "
      "expected one.\n");
  if (!json_to.empty()) {
    const std::string text = out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (const Status s = write_line(json_to, text); !s.ok()) return fail(s);
  }
  return kServed;
}

}  // namespace

void add_eval(CLI::App& app, Run& run) {
  auto command = std::make_shared<EvalCommand>();
  command->model.add_to(app, kScores);
  app.add_option("files", command->files,
                 "JSON lines: requests with `relevant` and, optionally, `log_odds`")
      ->required();
  app.add_option("--json", command->json_to, "Write the table as JSON too");
  app.callback([command, &run] { run = [command] { return command->run(); }; });
}

}  // namespace vlr::tools
