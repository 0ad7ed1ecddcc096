/// Where the encoded bytes of a medium (a picture, a frame, a video file) come from.
#ifndef VLR_MULTIMODAL_SOURCE_H_
#define VLR_MULTIMODAL_SOURCE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "vlr/status.h"

namespace vlr {

/// Which files of this machine a source may name.
enum class LocalFiles : uint8_t {
  kAnywhere,
  kBelowRoot,  ///< wherever a path or its symbolic links lead, the file lies below the root
  kNever,
};

/// What Options::local_files says: "anywhere", "below_media_root" or "never".
constexpr LocalFiles local_files_of(std::string_view name) {
  return name == "never"      ? LocalFiles::kNever
         : name == "anywhere" ? LocalFiles::kAnywhere
                              : LocalFiles::kBelowRoot;
}

struct SourceOptions {
  int64_t max_bytes = int64_t{1} << 30;  ///< encoded bytes of one medium
  LocalFiles local_files = LocalFiles::kAnywhere;
  bool allow_remote = false;  ///< http: and https: URLs
  /// Whether connections may go to addresses that are not public too: see is_public_address().
  bool allow_private = false;
  int64_t max_remote_bytes = int64_t{256} << 20;  ///< of what is behind a URL; max_bytes holds, too
  double timeout_seconds = 30;                    ///< for all of a URL, its redirects included
  std::chrono::steady_clock::time_point deadline =  ///< for all URLs of a request
      std::chrono::steady_clock::time_point::max();
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

/// A whole file. kNotFound: no such file; kInvalidArgument: no regular file (a folder, a pipe),
/// empty, or longer than max_bytes; kDataLoss: it cannot be read. Waits for no other process.
Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_SOURCE_H_
