/// A request as JSON: the official one, the shapes that HTTP rerankers take, and what an evaluation
/// file adds. docs/formats.md lists the keys.
///   {"instruction"?: text, "query": side, "documents": [side, ...], "fps"?: n, ...}
///   side: text | [part, ...] | {"content": text | [part, ...]} |
///         {"text"?: text | [text, ...], "image"?: medium | [medium, ...],
///          "video"?: medium | frames | [medium | frames, ...]}
///   part: {"type": "text" | "image_url" | "video_url" | ..., the key that it names: ...}
///   medium: path | {"url": path};  frames: [medium, ...] of pictures
#ifndef VLR_ENGINE_API_REQUEST_JSON_H_
#define VLR_ENGINE_API_REQUEST_JSON_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vlr/reranker.h"
#include "vlr/status.h"

namespace vlr {

/// A request has at most so many documents.
inline constexpr int64_t kMaxDocuments = 1'000'000;

/// A request of an evaluation file also says what is right.
struct ParsedRequest {
  Request request;
  std::optional<int64_t> relevant;  ///< index of the right document
  std::vector<double> log_odds;     ///< expected, one a document; may be empty
};

/// Reads a request in one pass. kInvalidArgument where it is unusable as a whole: no JSON, no query
/// or a defect in it, no documents or too many. Whatever is wrong within a document, down to half a
/// surrogate pair in one of its strings or a key that is not known, is Content::error of that
/// document, which keeps its place. Other keys that are not known are named in Request::warnings.
Result<ParsedRequest> parse_request(std::string_view json);

/// One side alone; what is wrong with it, no JSON among it, is its `error`.
Content parse_side(std::string_view json);

/// Checks and sets a member of a request by its key: one of request_number_keys().
Status set_request_number(Request& request, std::string_view key, double value);
/// "fps", "max_frames", ...; separated by ", ".
std::string request_number_keys();

}  // namespace vlr

#endif  // VLR_ENGINE_API_REQUEST_JSON_H_
