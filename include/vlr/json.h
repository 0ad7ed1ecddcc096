/// Requests, responses and plans as JSON text: what `vlr score` and `vlr plan` read and print.
/// docs/formats.md describes the objects.
#ifndef VLR_JSON_H_
#define VLR_JSON_H_

#include <span>
#include <string>
#include <string_view>

#include "vlr/export.h"
#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// The official request, and what Cohere, Jina, vLLM and SGLang take for one (docs/formats.md).
/// kInvalidArgument: it is unusable as a whole, being no JSON or having no query or no documents. A
/// document that makes no sense keeps its place with Content::error. A key of the request that is
/// not known has no effect but an entry of Request::warnings.
VLR_API Result<Request> request_from_json(std::string_view json);

struct JsonStyle {
  int indent = -1;    ///< spaces a level; -1: everything on one line
  bool usage = true;  ///< whether to add Response::usage, which is of the whole call
  /// What the response is of: its top_n and return_documents are followed, its warnings shown.
  const Request* request = nullptr;
};

/// The object that `vlr score` prints for a request. `explanations`, what explain() gave for it, is
/// empty or one a document.
VLR_API std::string response_json(const Response& response, const Reranker& reranker,
                                  std::span<const Explanation> explanations = {},
                                  const JsonStyle& style = {});

/// {"results": [{"index", "status", "message"?, "explain"}, ...]}, one a document, none scored.
VLR_API std::string explanations_json(std::span<const Explanation> explanations,
                                      const JsonStyle& style = {});

/// {"media": [{"name", "status", "message"?, "tokens", "was_cached"}, ...], "usage"}.
VLR_API std::string prefetch_json(const PrefetchResult& result, const JsonStyle& style = {});

/// The member `usage` of a response alone.
VLR_API std::string usage_json(const Usage& usage, const JsonStyle& style = {});

/// What Reranker::plan() and memory() tell, all sizes in bytes.
VLR_API std::string memory_plan_json(const MemoryPlan& plan, const JsonStyle& style = {});

}  // namespace vlr

#endif  // VLR_JSON_H_
