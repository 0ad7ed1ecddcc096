#include "multimodal/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <system_error>

#include "multimodal/uri.h"
#ifdef VLR_WITH_CURL
#include "multimodal/address.h"
#include "multimodal/remote.h"
#endif

namespace vlr {
namespace {

using Bytes = std::vector<std::byte>;

Result<Bytes> read_path(std::string_view path, const std::filesystem::path& root,
                        int64_t max_bytes) {
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
  return read_file(root / path, max_bytes);
}

Result<Bytes> read_file_uri(std::string_view uri, const std::filesystem::path& root,
                            int64_t max_bytes) {
  std::string_view path = uri.substr(std::string_view("file:").size());
  if (path.starts_with("//")) path.remove_prefix(2);
  constexpr std::string_view kThisHost = "localhost";
  if (path.starts_with(kThisHost) && path.substr(kThisHost.size()).starts_with('/'))
    path.remove_prefix(kThisHost.size());

  const std::optional<std::string> decoded = media::percent_decoded(path);
  if (decoded && *decoded != path) {
    Result<Bytes> bytes = read_path(*decoded, root, max_bytes);
    if (bytes || bytes.error().code() != Code::kNotFound) return bytes;
  }
  Result<Bytes> bytes = read_path(path, root, max_bytes);
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

}  // namespace

Result<Bytes> read_source(std::string_view uri, const std::filesystem::path& root,
                          const SourceOptions& options) try {
  const auto named = [&](Result<Bytes> bytes) -> Result<Bytes> {
    if (bytes) return bytes;
    return bytes.error().with_context(describe_source(uri));
  };
  const std::string scheme = media::scheme_of(uri);
  if (scheme == "data") return named(media::decode_data_uri(uri, options.max_bytes));
  if (scheme == "http" || scheme == "https") return named(read_url(uri, options));
  if (scheme == "file") return read_file_uri(uri, root, options.max_bytes);
  Result<Bytes> bytes = read_path(uri, root, options.max_bytes);
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
    // scheme://user:password@host/path?query#fragment
    std::string_view rest = uri.substr(scheme.size() + 3);
    const size_t query = std::min(rest.find_first_of("?#"), rest.size());
    const size_t user = rest.substr(0, std::min(rest.find('/'), query)).rfind('@');
    const bool has_query = query < rest.size(), has_user = user != std::string_view::npos;
    rest = rest.substr(0, query).substr(has_user ? user + 1 : 0);
    url = fmt::format("{}://{}{}{}", scheme, has_user ? "…@" : "", rest, has_query ? "?…" : "");
    text = url;
  }
  const size_t max_shown = scheme == "data" ? 64 : 200;
  std::string shown(head(text, max_shown));
  std::ranges::replace_if(
      shown, [](char c) { return static_cast<uint8_t>(c) < ' ' || c == 0x7f; }, '?');
  if (shown.size() < text.size()) shown += fmt::format("… ({} characters)", uri.size());
  return shown;
}

Result<std::vector<std::byte>> read_file(const std::filesystem::path& path, int64_t max_bytes) try {
  namespace fs = std::filesystem;
  const std::string name = path.string();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    const bool missing = status.type() == fs::file_type::not_found;
    return {missing ? Code::kNotFound : Code::kDataLoss,
            fmt::format("{}: {}", name, missing ? "no such file" : error.message())};
  }
  if (fs::is_directory(status))
    return {Code::kInvalidArgument, fmt::format("{}: is a folder, expected a file", name)};
  const uintmax_t size = fs::is_regular_file(status) ? fs::file_size(path, error) : 0;
  if (error) return {Code::kDataLoss, fmt::format("{}: {}", name, error.message())};
  if (!fs::is_regular_file(status)) {
    return {Code::kInvalidArgument, fmt::format("{}: is neither a file nor a link to one", name)};
  }
  if (size == 0) return {Code::kInvalidArgument, fmt::format("{}: is empty", name)};
  if (max_bytes < 0 || size > static_cast<uintmax_t>(max_bytes)) {
    return {Code::kInvalidArgument,
            fmt::format("{}: has {} bytes, at most {} are allowed", name, size, max_bytes)};
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return {Code::kDataLoss, fmt::format("{}: cannot be opened: {}", name, std::strerror(errno))};
  std::vector<std::byte> bytes(size);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (in.gcount() != static_cast<std::streamsize>(size)) {
    return {Code::kDataLoss, fmt::format("{}: gave {} of {} bytes", name, in.gcount(), size)};
  }
  return bytes;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "read_file: no host memory"};
}

}  // namespace vlr
