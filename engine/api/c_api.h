/// What the files of the C API share: the handles, and the guard that every body runs in, so that
/// nothing is thrown across it.
#ifndef VLR_ENGINE_API_C_API_H_
#define VLR_ENGINE_API_C_API_H_

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "vlr/reranker.h"
#include "vlr/vlr.h"

struct vlr_options {
  vlr::Options options;
};
struct vlr_request {
  vlr::Request request;
};
struct vlr_reranker {
  vlr::Reranker reranker;
  std::string model_name, device, dtype, quant, preset;  // terminated
};

namespace vlr::c_api {

/// Copies what fits and cuts no UTF-8 character in two. Allocates nothing.
template <size_t kSize>
void copy_text(char (&to)[kSize], std::string_view from) {
  size_t length = std::min(from.size(), kSize - 1);
  if (length < from.size()) {
    while (length > 0 && (static_cast<unsigned char>(from[length]) & 0xc0) == 0x80) --length;
  }
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

/// Fills what the caller's version of a struct has of `from`; its struct_size stays.
template <class T>
void copy_struct(T* to, T from) {
  if (!to) return;
  const size_t size = to->struct_size;
  from.struct_size = size;
  std::memcpy(to, &from, std::min(size, sizeof(T)));
}

/// What every version of these structs has had since 0.2.0; what is added later comes behind.
inline constexpr size_t kFirstErrorSize = offsetof(vlr_error, message) + sizeof(vlr_error::message),
                        kFirstResultSize =
                            offsetof(vlr_result, message) + sizeof(vlr_result::message);

inline vlr_code report(Code code, std::string_view message, vlr_error* error) {
  const auto c_code = static_cast<vlr_code>(code);
  // One that was not initialised has no room that is known.
  if (error && error->struct_size >= kFirstErrorSize) {
    error->code = c_code;
    copy_text(error->message, message);
  }
  return c_code;
}

template <class F>
vlr_code guarded(vlr_error* error, F&& body) noexcept {
  try {
    const Status status = body();
    return report(status.code(), status.message(), error);
  } catch (const std::bad_alloc&) {
    return report(Code::kOutOfMemory, "host memory", error);
  } catch (const std::exception& e) {
    return report(Code::kInternal, e.what(), error);
  } catch (...) {
    return report(Code::kInternal, "unknown exception", error);
  }
}

inline Status missing(std::string_view what) {
  return {Code::kInvalidArgument, std::string(what) + " must not be NULL"};
}

/// Text for vlr_string_free().
inline Status give(const std::string& text, char** out) {
  *out = static_cast<char*>(std::malloc(text.size() + 1));
  if (!*out) return {Code::kOutOfMemory, "host memory"};
  std::memcpy(*out, text.c_str(), text.size() + 1);
  return {};
}

}  // namespace vlr::c_api

#endif  // VLR_ENGINE_API_C_API_H_
