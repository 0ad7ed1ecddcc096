/// Requests with known answers: how well they are ranked, and how far scores are from expected ones.
#ifndef VLR_TOOLS_EVALUATION_H_
#define VLR_TOOLS_EVALUATION_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "engine/api/request_json.h"
#include "vlr/reranker.h"

namespace vlr::tools {

/// Sums over the requests of a file.
struct Metrics {
  int64_t requests = 0, pairs = 0, failed = 0;
  int64_t judged = 0;  // requests that say which document is relevant
  double top1 = 0, mrr = 0, ndcg = 0;
  int64_t compared = 0;  // pairs with an expected log-odds
  double max_distance = 0, sum_distance = 0;
  int64_t top1_changes = 0, order_changes = 0;
  double seconds = 0;

  void add(const ParsedRequest& expected, const Response& response);
};

/// Indices by falling score, equal ones in their order.
template <class Scores>
std::vector<size_t> ranking(const Scores& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  return order;
}

/// A file's requests, and what they should give.
struct EvalFile {
  std::string path;
  std::vector<ParsedRequest> expected;
  std::vector<Request> requests;
  int64_t pairs = 0;
};

Result<EvalFile> read_eval(const std::string& path, bool has_media_root);

/// Scores a file with a bar on stderr, and adds its time.
Result<std::vector<Response>> score_eval(Reranker& reranker, const EvalFile& set, Metrics& metrics);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_EVALUATION_H_
