/// Requests from a file, or from standard input as they come.
#ifndef VLR_TOOLS_REQUEST_STREAM_H_
#define VLR_TOOLS_REQUEST_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/api/request_json.h"
#include "vlr/status.h"

namespace vlr::tools {

/// One JSON object, or one a line. Standard input is JSON lines as soon as its first line is one
/// request or none; a file is if it has several lines that are no JSON as a whole.
class RequestStream {
 public:
  /// "-": standard input, from which it reads its first line.
  static Result<RequestStream> open(const std::string& path);

  bool json_lines() const { return json_lines_; }
  /// The next requests, at most so many; none: that was all. Waits for the first one only, and then
  /// for a moment, so that who writes a line and waits for its answer gets it. A line that is no
  /// usable request keeps its place.
  Result<std::vector<Result<ParsedRequest>>> next(size_t most);
  /// Whether all of the input was read.
  bool ended() const { return ended_; }
  /// Why not one of the requests so far was usable; ok if one was.
  Status unusable() const;

 private:
  Status read_more();  // at least a byte, or the end
  bool idle() const;   // nothing has come for a moment
  size_t line_end();
  Status find_form();
  void add(std::string_view text, std::vector<Result<ParsedRequest>>& out);

  std::string name_;  // for messages
  std::string text_;
  size_t begin_ = 0;     // of what is not taken yet
  size_t searched_ = 0;  // up to here there is no end of a line
  bool ended_ = false;   // no more text comes
  bool json_lines_ = false;
  bool any_usable_ = false;
  Status error_ = {};  // the first one
  int64_t lines_ = 0;  // taken
};

/// All requests of a file, of which at least one is usable.
struct RequestFile {
  std::vector<Result<ParsedRequest>> requests;  ///< an unusable line keeps its place
  bool json_lines = false;
};
Result<RequestFile> read_requests(const std::string& path);

/// Contents of a file (a pipe too), or of standard input for "-".
Result<std::string> read_input(const std::string& path);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_REQUEST_STREAM_H_
