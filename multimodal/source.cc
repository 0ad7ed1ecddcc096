#include "multimodal/source.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <system_error>

#include "kernels/core/text.h"
#include "multimodal/local_file.h"
#include "multimodal/uri.h"
#ifdef VLR_WITH_CURL
#include "multimodal/address.h"
#include "multimodal/remote.h"
#endif

namespace vlr {
namespace {

using Bytes = std::vector<std::byte>;

Result<Bytes> read_path(std::string_view path, const std::filesystem::path& root,
                        const SourceOptions& options) {
  constexpr size_t kLongestPath = 4096;  // PATH_MAX of Linux
  if (path.size() >= kLongestPath) {
    return {Code::kInvalidArgument,
            fmt::format("{}: too long for a path; the bytes of a medium themselves need "
                        "'data:;base64,' in front of them",
                        describe_source(path))};
  }
  if (path.find('\0') != std::string_view::npos) {
    return {Code::kInvalidArgument,
            fmt::format("{}: a path with a NUL in it", describe_source(path))};
  }
  switch (options.local_files) {
    case LocalFiles::kAnywhere:
      return read_file(root / path, options.max_bytes);
    case LocalFiles::kBelowRoot:
      return media::read_file_below(root, path, options.max_bytes);
    case LocalFiles::kNever:
      break;
  }
  return {Code::kInvalidArgument,
          fmt::format("{}: files of this machine are not allowed (local_files is never)",
                      describe_source(path))};
}

Result<Bytes> read_file_uri(std::string_view uri, const std::filesystem::path& root,
                            const SourceOptions& options) {
  std::string_view path = uri.substr(std::string_view("file:").size());
  if (path.starts_with("//")) path.remove_prefix(2);
  constexpr std::string_view kThisHost = "localhost";
  if (path.starts_with(kThisHost) && path.substr(kThisHost.size()).starts_with('/'))
    path.remove_prefix(kThisHost.size());

  const std::optional<std::string> decoded = media::percent_decoded(path);
  if (decoded && *decoded != path) {
    Result<Bytes> bytes = read_path(*decoded, root, options);
    if (bytes || bytes.error().code() != Code::kNotFound) return bytes;
  }
  Result<Bytes> bytes = read_path(path, root, options);
  if (bytes || bytes.error().code() != Code::kNotFound || path.starts_with('/')) return bytes;
  return {Code::kNotFound, fmt::format("{} (what follows file:// is a path, not another host)",
                                       bytes.error().message())};
}

Result<Bytes> read_url(std::string_view url, const SourceOptions& options) {
  if (!options.allow_remote) {
    return {Code::kInvalidArgument,
            "media of other hosts are not allowed; allow_remote allows them"};
  }
#ifdef VLR_WITH_CURL
  const auto any = [](std::span<const uint8_t>) { return true; };
  return media::fetch(url, options, options.allow_private ? any : media::is_public_address);
#else
  (void)url;
  return {Code::kUnimplemented, "only builds with VLR_WITH_CURL read from other hosts"};
#endif
}

// The first `size` bytes of a text, or less so as not to cut a character of UTF-8.
std::string_view head(std::string_view text, size_t size) {
  if (text.size() <= size) return text;
  while (size > 0 && (static_cast<uint8_t>(text[size]) & 0xc0) == 0x80) --size;
  return text.substr(0, size);
}

/// Begins as base64 of PNG, JPEG, GIF, WebP and AVI, BMP, MP4 or Matroska does, and is nothing else.
bool is_base64_of_media(std::string_view text) {
  constexpr std::string_view kBegins[] = {"iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR",
                                          "Qk",          "AAAA", "GkXf"};
  constexpr size_t kShortest = 32;
  return text.size() >= kShortest &&
         std::ranges::any_of(kBegins, [&](std::string_view b) { return text.starts_with(b); }) &&
         std::ranges::all_of(text, [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '+' || c == '/' || c == '=';
         });
}

}  // namespace

Result<Bytes> read_source(std::string_view uri, const std::filesystem::path& root,
                          const SourceOptions& options) try {
  const auto named = [&](Result<Bytes> bytes) -> Result<Bytes> {
    if (bytes) return bytes;
    return bytes.error().with_context(describe_source(uri));
  };
  if (uri.empty()) return {Code::kInvalidArgument, "a medium with neither a path nor bytes"};
  const std::string scheme = media::scheme_of(uri);
  if (scheme == "data") return named(media::decode_data_uri(uri, options.max_bytes));
  if (scheme == "http" || scheme == "https") return named(read_url(uri, options));
  if (scheme == "file") return read_file_uri(uri, root, options);
  Result<Bytes> bytes = read_path(uri, root, options);
  if (bytes.error().code() == Code::kNotFound && is_base64_of_media(uri)) {
    return named({Code::kInvalidArgument,
                  "no such file; the bytes of a medium in base64 need 'data:;base64,' in front of "
                  "them"});
  }
  if (!scheme.empty() && bytes.error().code() == Code::kNotFound) {
    return named({Code::kInvalidArgument,
                  fmt::format("no such file, and the scheme '{}:' is none of file:, data:, http: "
                              "and https:",
                              head(scheme, 20))});
  }
  return bytes;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "read_source: no host memory"};
}

std::string describe_source(std::string_view uri) {
  const std::string scheme = media::scheme_of(uri);
  std::string url;
  std::string_view text = uri;
  if (!scheme.empty() && scheme != "data" && scheme != "file") {
    // scheme://user:password@host/path?query#fragment. A password may have '/', '?' or '#' in it
    // that ought to be encoded: what could be one is hidden.
    std::string_view rest = uri.substr(scheme.size() + 3);
    size_t query = std::min(rest.find_first_of("?#"), rest.size());
    size_t user = rest.substr(0, std::min(rest.find('/'), query)).rfind('@');
    if (const size_t at = rest.rfind('@');
        user == rest.npos && at != rest.npos && rest.substr(0, at).find(':') != rest.npos) {
      if (at > query)
        query = 0;
      else
        user = at;
    }
    const bool has_query = query < rest.size(), has_user = user != std::string_view::npos;
    rest = rest.substr(0, query).substr(has_user ? user + 1 : 0);
    url = fmt::format("{}://{}{}{}", scheme, has_user ? "…@" : "", rest, has_query ? "?…" : "");
    text = url;
  }
  const size_t max_shown = scheme == "data" ? 64 : 200;
  const std::string_view begin = head(text, max_shown);
  std::string shown = printable(begin);
  if (begin.size() < text.size()) shown += fmt::format("… ({} characters)", uri.size());
  return shown;
}

Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, int64_t max_bytes) try {
  namespace fs = std::filesystem;
  const std::string name = printable(path.string());
  std::error_code error;
  const fs::file_status status = fs::status(path, error);  // opening a device may do something
  if (!fs::exists(status)) {
    const bool missing = status.type() == fs::file_type::not_found;
    return {missing ? Code::kNotFound : Code::kDataLoss,
            fmt::format("{}: {}", name, missing ? "no such file" : error.message())};
  }
  if (!fs::is_regular_file(status))
    return {Code::kInvalidArgument, media::not_a_file(name, status)};
  const Descriptor file(open(path.c_str(), media::kReadOnly));
  if (file.get() < 0)
    return {Code::kDataLoss, fmt::format("{}: cannot be opened: {}", name, std::strerror(errno))};
  return media::read_open_file(file.get(), name, max_bytes);
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "read_file: no host memory"};
}

}  // namespace vlr
