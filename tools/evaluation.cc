#include "tools/evaluation.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "kernels/core/clock.h"
#include "tools/common.h"
#include "tools/request_stream.h"

namespace vlr::tools {

namespace fs = std::filesystem;

void Metrics::add(const ParsedRequest& expected, const Response& response) {
  ++requests;
  pairs += std::ssize(response.results);
  std::vector<double> got;
  for (const DocumentResult& r : response.results) {
    got.push_back(r.scored() ? r.log_odds : -INFINITY);
    if (!r.scored()) ++failed;
  }
  const std::vector<size_t> order = ranking(got);
  if (expected.relevant) {
    ++judged;
    if (response.results[static_cast<size_t>(*expected.relevant)].scored()) {
      const auto at =
          std::find(order.begin(), order.end(), static_cast<size_t>(*expected.relevant));
      const double rank = 1.0 + static_cast<double>(at - order.begin());
      top1 += rank == 1;
      mrr += 1 / rank;
      ndcg += 1 / std::log2(1 + rank);
    }
  }
  if (expected.log_odds.empty() || got.empty()) return;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!response.results[i].scored()) continue;
    const double distance = std::abs(got[i] - expected.log_odds[i]);
    max_distance = std::max(max_distance, distance);
    sum_distance += distance;
    ++compared;
  }
  const std::vector<size_t> wanted = ranking(expected.log_odds);
  top1_changes += order.front() != wanted.front();
  order_changes += order != wanted;
}

Result<EvalFile> read_eval(const std::string& path, bool has_media_root) {
  VLR_ASSIGN_OR_RETURN(const RequestFile file, read_requests(path));
  EvalFile out{.path = path, .expected = {}, .requests = {}};
  for (size_t i = 0; i < file.requests.size(); ++i) {
    if (!file.requests[i])
      return file.requests[i].error().with_context(fmt::format("{}: request {}", path, i));
    out.expected.push_back(*file.requests[i]);
    out.requests.push_back(file.requests[i]->request);
    if (!has_media_root)
      out.requests.back().media_root = (fs::path(path).parent_path() / "media").string();
    out.pairs += std::ssize(out.requests.back().documents);
  }
  return out;
}

Result<std::vector<Response>> score_eval(Reranker& reranker, const EvalFile& set,
                                         Metrics& metrics) {
  const double start = seconds_now();
  Progress progress(set.pairs, "pairs of " + set.path);
  VLR_ASSIGN_OR_RETURN(
      std::vector<Response> responses,
      reranker.score(set.requests, [&](const DocumentResult&) { progress.step(); }));
  metrics.seconds += seconds_now() - start;
  for (size_t i = 0; i < set.requests.size(); ++i) metrics.add(set.expected[i], responses[i]);
  return responses;
}

}  // namespace vlr::tools
