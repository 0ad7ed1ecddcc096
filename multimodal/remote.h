/// What an http: or https: URL gives, read with libcurl; in builds with VLR_WITH_CURL.
#ifndef VLR_MULTIMODAL_REMOTE_H_
#define VLR_MULTIMODAL_REMOTE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multimodal/source.h"
#include "vlr/status.h"

namespace vlr::media {

/// Whether a connection may go to this address, 4 or 16 bytes in network order.
using AddressRule = bool (*)(std::span<const uint8_t> address);

/// The body of the answer to GET `url`, whose status has to be 200. Every connection asks `allowed`
/// about the very address that it goes to, whatever a name stood for a moment ago and however the
/// URL spells it. Redirects are followed, max_redirects of them, each to where check_redirect()
/// lets it go, with nothing of the request before. Nothing is sent that is not in the URL: no
/// cookies, no netrc; no proxy is used. Any thread may call it.
///
/// kInvalidArgument: a URL, an address or a redirect that is not allowed, an empty body or one of
/// more than max_bytes; kNotFound: no such host, status 404 or 410; kDataLoss: another status, a
/// cut body, no connection, or not all of it within timeout_seconds.
Result<std::vector<std::byte>> fetch(std::string_view url, const SourceOptions& options,
                                     AddressRule allowed);

/// Whether an answer of `from` may send the client to `to`: to http: and https: only, and from
/// https: to https: only.
Status check_redirect(std::string_view from, std::string_view to);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_REMOTE_H_
