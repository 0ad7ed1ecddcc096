/// Where the encoded bytes of a medium (a picture, a frame, a video file) come from.
#ifndef VLR_MULTIMODAL_SOURCE_H_
#define VLR_MULTIMODAL_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "vlr/status.h"

namespace vlr {

struct SourceOptions {
  int64_t max_bytes = int64_t{1} << 30;  ///< encoded bytes of one medium
  bool allow_remote = false;             ///< http: and https: URLs
  /// Whether connections may go to addresses that are not public too: see is_public_address().
  bool allow_private = false;
  double timeout_seconds = 30;  ///< for all of a URL, its redirects included
  int max_redirects = 5;
};

/// The bytes that `uri` stands for:
///   a path            a relative one starts from `root`, or from the working directory if that is
///                     empty; a colon, as in a:b.png or C:\a.png, does not make it a URI
///   file:             file:///a.png, file://localhost/a.png (RFC 8089), percent-decoded if there
///                     is such a file and as it is otherwise; and, as in the reference, file://
///                     before any path, relative ones too
///   data:             RFC 2397, base64 or percent-encoded; the media type is ignored
///   http:, https:     see media::fetch(); kUnimplemented in builds without VLR_WITH_CURL
/// kInvalidArgument: malformed, not allowed, of another scheme, empty, or longer than max_bytes;
/// kNotFound: no such file, host or page; kDataLoss: it cannot be read. Messages name the source.
Result<std::vector<std::byte>> read_source(std::string_view uri, const std::filesystem::path& root,
                                           const SourceOptions& options);

/// How messages name a source: what is long is cut; a URL's user, password, query and fragment are
/// hidden; control characters are question marks.
std::string describe_source(std::string_view uri);

/// A whole file. kNotFound: no such file; kInvalidArgument: a folder, empty, or longer than
/// max_bytes; kDataLoss: it cannot be read.
Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_SOURCE_H_
