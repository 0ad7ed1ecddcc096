/// The text of URIs: schemes and percent-encoding (RFC 3986), data: URIs (RFC 2397).
#ifndef VLR_MULTIMODAL_URI_H_
#define VLR_MULTIMODAL_URI_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vlr/status.h"

namespace vlr::media {

/// The scheme in lower case, "https" of "HTTPS://host/"; empty for a path. A scheme has two
/// characters or more and "://" behind it; ":" is enough for data, ":/" for file.
std::string scheme_of(std::string_view uri);

/// "a b" of "a%20b"; nothing if a '%' is not followed by two hexadecimal digits.
std::optional<std::string> percent_decoded(std::string_view text);

/// A URL as an HTTP client may send it, by the rules of Python's requests: behind the host, what
/// RFC 3986 does not allow (spaces, anything beyond ASCII) is percent-encoded, and escapes of
/// unreserved characters are undone; if one '%' is no escape, none is.
std::string quoted_url(std::string_view url);

/// The bytes of a URI of scheme data. Base64 may leave out its padding, have white space in it, and
/// be percent-encoded. kInvalidArgument: malformed (messages count characters of the URI from 1),
/// empty, or, which is known before anything is decoded, longer than max_bytes.
Result<std::vector<std::byte>> decode_data_uri(std::string_view uri, int64_t max_bytes);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_URI_H_
