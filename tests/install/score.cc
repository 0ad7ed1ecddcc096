// score_cc MODEL QUERY PICTURE: prints the log-odds of one pair, through the C++ API.
#include <cstdio>

#include "vlr/reranker.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  auto reranker = vlr::Reranker::open(argv[1], {});
  if (!reranker) {
    std::fprintf(stderr, "%s\n", reranker.error().message().c_str());
    return 1;
  }
  vlr::Request request;
  request.query.texts = {argv[2]};
  request.documents.resize(1);
  request.documents[0].images = {{.path = argv[3], .bytes = nullptr}};
  auto response = reranker->score(request);
  if (!response) {
    std::fprintf(stderr, "%s\n", response.error().message().c_str());
    return 1;
  }
  const vlr::DocumentResult& result = response->results[0];
  if (!result.scored()) {
    std::fprintf(stderr, "%s\n", result.message.c_str());
    return 1;
  }
  std::printf("%.6f\n", static_cast<double>(result.log_odds));
}
