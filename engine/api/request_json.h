/// The official request as JSON, and what an evaluation file adds to it.
///   {"instruction"?: text, "query": side, "documents": [side, ...], "fps"?: n, "max_frames"?: n}
///   side: {"text"?: text | [text, ...], "image"?: path | [path, ...],
///          "video"?: path | frames | [path | frames, ...]}
///   frames: [path, ...] of pictures
#ifndef VLR_ENGINE_API_REQUEST_JSON_H_
#define VLR_ENGINE_API_REQUEST_JSON_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// A request of an evaluation file also says what is right.
struct ParsedRequest {
  Request request;
  std::optional<int64_t> relevant;  ///< index of the right document
  std::vector<double> log_odds;     ///< expected, one a document; may be empty
};

/// kInvalidArgument where the request as a whole is unusable: no JSON, no query, documents that are
/// no list. A document that makes no sense keeps its place with Content::error. Keys that are not
/// known are refused in a side, where they would silently be scored as nothing, and ignored beside
/// it.
Result<ParsedRequest> parse_request(std::string_view json);

}  // namespace vlr

#endif  // VLR_ENGINE_API_REQUEST_JSON_H_
