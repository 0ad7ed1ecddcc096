#include "multimodal/remote.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>

#include "multimodal/uri.h"

namespace vlr::media {
namespace {

using Clock = std::chrono::steady_clock;

// A host that does not even answer is given up sooner than one that sends slowly.
constexpr auto kConnectTimeout = std::chrono::seconds(10);

struct FreeHandle {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using Handle = std::unique_ptr<CURL, FreeHandle>;
struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, FreeList>;

/// One request, as its callbacks see it.
struct Transfer {
  CURL* handle;
  int64_t max_bytes;
  AddressRule allowed;

  std::vector<std::byte> body = {};
  int64_t received = 0;                 // bytes, those of a redirect's body too, which is not kept
  Status error = {};                    // why a callback stopped the transfer
  char refused[INET6_ADDRSTRLEN] = "";  // the last address that is not allowed
  bool any_allowed = false;             // of the addresses that libcurl has tried
};

bool is_redirect(long status) { return status >= 300 && status < 400; }

Status status_error(long status) {
  const bool missing = status == 404 || status == 410;
  return {missing ? Code::kNotFound : Code::kDataLoss,
          fmt::format("status {}, expected 200", status)};
}

Status receive(Transfer& t, std::span<const std::byte> bytes) try {
  long status = 0;
  curl_off_t length = -1;  // what the header announces
  curl_easy_getinfo(t.handle, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(t.handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (status != 200 && !is_redirect(status)) return status_error(status);
  t.received += std::ssize(bytes);
  if (const int64_t size = std::max<int64_t>(length, t.received); size > t.max_bytes) {
    return {Code::kInvalidArgument,
            fmt::format("has {}{} bytes, at most {} are allowed", length < size ? "at least " : "",
                        size, t.max_bytes)};
  }
  if (status == 200) t.body.insert(t.body.end(), bytes.begin(), bytes.end());
  return {};
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "no host memory"};
}

size_t on_body(char* data, size_t, size_t size, void* transfer) {
  auto& t = *static_cast<Transfer*>(transfer);
  t.error = receive(t, std::as_bytes(std::span(data, size)));
  return t.error.ok() ? size : CURL_WRITEFUNC_ERROR;
}

curl_socket_t on_socket(void* transfer, curlsocktype, curl_sockaddr* address) {
  auto& t = *static_cast<Transfer*>(transfer);
  std::span<const uint8_t> bytes;
  if (address->family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address->addr);
    bytes = {reinterpret_cast<const uint8_t*>(&v4->sin_addr), 4};
  } else if (address->family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address->addr);
    bytes = {reinterpret_cast<const uint8_t*>(&v6->sin6_addr), 16};
  }
  if (bytes.empty() || !t.allowed(bytes)) {
    if (!bytes.empty()) inet_ntop(address->family, bytes.data(), t.refused, sizeof t.refused);
    return CURL_SOCKET_BAD;
  }
  t.any_allowed = true;
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

Code code_of(CURLcode error) {
  switch (error) {
    case CURLE_URL_MALFORMAT:
      return Code::kInvalidArgument;
    case CURLE_COULDNT_RESOLVE_HOST:
      return Code::kNotFound;
    case CURLE_OUT_OF_MEMORY:
      return Code::kOutOfMemory;
    default:
      return Code::kDataLoss;
  }
}

Status timeout_error(const SourceOptions& options, std::string_view detail) {
  return {Code::kDataLoss, fmt::format("no whole answer in time ({} s to connect, {} s in all): {}",
                                       kConnectTimeout.count(), options.timeout_seconds, detail)};
}

struct Answer {
  std::vector<std::byte> body;
  std::string redirect;  // the URL that the answer points to, or empty
};

// One request. A handle of its own: no connection, cookie or password of another one can reach it.
Result<Answer> get(const std::string& url, Clock::time_point deadline, const SourceOptions& options,
                   AddressRule allowed) {
  using std::chrono::milliseconds;
  const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
  if (left.count() < 1) {
    return deadline == options.deadline
               ? Status(Code::kDataLoss, "the time for all URLs of a request is over")
               : timeout_error(options, "not even begun");
  }
  const Handle handle(curl_easy_init());
  const List headers(curl_slist_append(nullptr, "Accept-Encoding:"));  // nothing is asked for
  if (!handle || !headers) return {Code::kOutOfMemory, "no host memory for libcurl"};
  Transfer transfer{.handle = handle.get(),
                    .max_bytes = std::min(options.max_bytes, options.max_remote_bytes),
                    .allowed = allowed};
  char text[CURL_ERROR_SIZE] = "";

  CURLcode error = CURLE_OK;
  const auto set = [&](CURLoption option, auto value) {
    if (error == CURLE_OK) error = curl_easy_setopt(handle.get(), option, value);
  };
  // Redirects, netrc and cookies are off unless asked for. A content encoding is undone where a file
  // is stored with one; the limit is of what comes out.
  set(CURLOPT_URL, quoted_url(url).c_str());
  set(CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_PROXY, "");  // else the environment names one
  set(CURLOPT_USERAGENT, "vlr");
  set(CURLOPT_NOSIGNAL, 1L);  // signals are the process's, and this is one thread of many
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(left.count()));
  set(CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(std::min(left, milliseconds(kConnectTimeout)).count()));
  set(CURLOPT_OPENSOCKETFUNCTION, on_socket);
  set(CURLOPT_OPENSOCKETDATA, &transfer);
  set(CURLOPT_WRITEFUNCTION, on_body);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_ERRORBUFFER, text);
  if (error != CURLE_OK) {
    return {error == CURLE_OUT_OF_MEMORY ? Code::kOutOfMemory : Code::kInternal,
            fmt::format("libcurl refuses an option: {}", curl_easy_strerror(error))};
  }
  error = curl_easy_perform(handle.get());
  if (!transfer.error.ok()) return transfer.error;
  if (error != CURLE_OK && *transfer.refused && !transfer.any_allowed) {
    return {
        Code::kInvalidArgument,
        fmt::format(
            "its host has the address {}, which is not public; allow_private_addresses allows it",
            transfer.refused)};
  }
  const char* detail = *text ? text : curl_easy_strerror(error);
  if (error == CURLE_OPERATION_TIMEDOUT) return timeout_error(options, detail);
  if (error != CURLE_OK) return {code_of(error), detail};

  long status = 0;
  const char* redirect = nullptr;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(handle.get(), CURLINFO_REDIRECT_URL, &redirect);
  if (is_redirect(status) && redirect) return Answer{{}, redirect};
  if (status != 200) return status_error(status);
  if (transfer.body.empty()) return {Code::kInvalidArgument, "is empty"};
  return Answer{std::move(transfer.body), ""};
}

}  // namespace

Status check_redirect(std::string_view from, std::string_view to) {
  const std::string scheme = scheme_of(to);
  if (scheme != "https" && scheme != "http") {
    return {Code::kInvalidArgument,
            fmt::format("redirects to {}, which is neither http: nor https:", describe_source(to))};
  }
  if (scheme == "http" && scheme_of(from) == "https") {
    return {Code::kInvalidArgument,
            fmt::format("redirects from https: to {}", describe_source(to))};
  }
  return {};
}

Result<std::vector<std::byte>> fetch(std::string_view url, const SourceOptions& options,
                                     AddressRule allowed) try {
  // Never undone: libcurl may have other users in this process.
  static const CURLcode kInitialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (kInitialised != CURLE_OK) {
    return {Code::kInternal,
            fmt::format("libcurl does not start: {}", curl_easy_strerror(kInitialised))};
  }
  constexpr double kDay = 24 * 60 * 60;
  if (!(options.timeout_seconds > 0) || options.max_redirects < 0) {
    return {
        Code::kInvalidArgument,
        fmt::format("timeout_seconds {} and max_redirects {}, expected more than 0 and 0 or more",
                    options.timeout_seconds, options.max_redirects)};
  }
  if (url.find('\0') != std::string_view::npos) return {Code::kInvalidArgument, "has a NUL in it"};
  const Clock::time_point own_deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(
                         std::chrono::duration<double>(std::min(options.timeout_seconds, kDay)));

  const Clock::time_point deadline = std::min(own_deadline, options.deadline);
  std::string at(url);
  for (int redirects = 0;; ++redirects) {
    Result<Answer> answer = get(at, deadline, options, allowed);
    if (!answer) {
      return redirects == 0 ? answer.error()
                            : answer.error().with_context("redirected to " + describe_source(at));
    }
    if (answer->redirect.empty()) return std::move(answer->body);
    if (redirects == options.max_redirects) {
      return {Code::kInvalidArgument, fmt::format("redirects more than {} times, last to {}",
                                                  redirects, describe_source(answer->redirect))};
    }
    VLR_RETURN_IF_ERROR(check_redirect(at, answer->redirect));
    at = std::move(answer->redirect);
  }
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "no host memory"};
}

}  // namespace vlr::media
