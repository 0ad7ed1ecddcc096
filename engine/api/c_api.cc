/// The C API: every body runs inside guarded(), so that nothing is thrown across it.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include "engine/api/request_json.h"
#include "vlr/reranker.h"
#include "vlr/vlr.h"

struct vlr_reranker {
  vlr::Reranker reranker;
};
struct vlr_request {
  vlr::Request request;
};

namespace {

using vlr::Code;
using vlr::Status;

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

vlr_code report(Code code, std::string_view message, vlr_error* error) {
  if (error) {
    error->code = static_cast<vlr_code>(code);
    copy_text(error->message, message);
  }
  return static_cast<vlr_code>(code);
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

Status missing(std::string_view what) {
  return {Code::kInvalidArgument, std::string(what) + " must not be NULL"};
}

vlr::Options options_of(const vlr_options* o) {
  vlr::Options out;
  if (!o) return out;
  if (o->device) out.device = o->device;
  out.num_threads = o->num_threads;
  out.max_length = o->max_length;
  if (o->media_root) out.media_root = o->media_root;
  out.allow_special = o->allow_special != 0;
  out.compat_null = o->compat_null != 0;
  out.frame_factor = o->frame_factor;
  out.batch_tokens = o->batch_tokens;
  out.share_prefix = o->share_prefix != 0;
  if (o->dtype) out.dtype = o->dtype;
  out.exact = o->exact != 0;
  out.gpu_memory = o->gpu_memory;
  if (o->quant) out.quant = o->quant;
  out.exif = o->exif != 0;
  if (o->video_sampling) out.video_sampling = o->video_sampling;
  out.fps = o->fps;
  out.max_frames = o->max_frames;
  out.num_frames = o->num_frames;
  out.allow_remote = o->allow_remote != 0;
  out.vision_cache_bytes = o->vision_cache_bytes;
  if (o->vision_cache_dir) out.vision_cache_dir = o->vision_cache_dir;
  if (o->preset) out.preset = o->preset;
  if (o->device_map) out.device_map = o->device_map;
  if (o->offload_folder) out.offload_folder = o->offload_folder;
  return out;
}

vlr_result result_of(const vlr::DocumentResult& r) {
  vlr_result out{};
  out.index = r.index;
  out.status = static_cast<vlr_document_status>(r.status);
  out.log_odds = r.log_odds;
  out.score = r.score;
  out.num_tokens = r.num_tokens;
  out.truncated = r.truncated ? 1 : 0;
  copy_text(out.message, r.message);
  return out;
}

/// Runs `body` on the query or a document of a request.
template <class F>
vlr_code with_content(vlr_request* request, int64_t document, vlr_error* error, F&& body) {
  return guarded(error, [&]() -> Status {
    if (!request) return missing("request");
    if (document == VLR_QUERY) return body(request->request.query);
    auto& documents = request->request.documents;
    if (document < 0 || document >= std::ssize(documents)) {
      return {Code::kInvalidArgument,
              "document " + std::to_string(document) + " of " + std::to_string(documents.size())};
    }
    return body(documents[static_cast<size_t>(document)]);
  });
}

vlr::Media media_of(const char* name, const void* data, size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  return {.path = name, .bytes = std::make_shared<std::vector<std::byte>>(bytes, bytes + size)};
}

char* copy_string(const std::string& text) {
  char* out = static_cast<char*>(std::malloc(text.size() + 1));
  if (out) std::memcpy(out, text.c_str(), text.size() + 1);
  return out;
}

}  // namespace

extern "C" {

const char* vlr_version(void) { return VLR_VERSION; }

const char* vlr_document_status_name(vlr_document_status status) {
  return vlr::document_status_name(static_cast<vlr::DocumentStatus>(status))
      .data();  // of a literal: terminated
}

vlr_options vlr_default_options(void) {
  const vlr::Options o;
  return {.device = "auto",
          .num_threads = o.num_threads,
          .max_length = o.max_length,
          .media_root = nullptr,
          .allow_special = o.allow_special,
          .compat_null = o.compat_null,
          .frame_factor = o.frame_factor,
          .batch_tokens = o.batch_tokens,
          .share_prefix = o.share_prefix,
          .dtype = "auto",
          .exact = o.exact,
          .gpu_memory = o.gpu_memory,
          .quant = nullptr,
          .exif = o.exif,
          .video_sampling = nullptr,
          .fps = o.fps,
          .max_frames = o.max_frames,
          .num_frames = o.num_frames,
          .allow_remote = o.allow_remote,
          .vision_cache_bytes = o.vision_cache_bytes,
          .vision_cache_dir = nullptr,
          .preset = nullptr,
          .device_map = nullptr,
          .offload_folder = nullptr};
}

vlr_code vlr_open(const char* path, const vlr_options* options, vlr_reranker** out,
                  vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!path || !out) return missing(path ? "out" : "path");
    *out = nullptr;
    VLR_ASSIGN_OR_RETURN(vlr::Reranker reranker, vlr::Reranker::open(path, options_of(options)));
    *out = new vlr_reranker{std::move(reranker)};
    return {};
  });
}

void vlr_close(vlr_reranker* reranker) { delete reranker; }

vlr_request* vlr_request_new(void) { return new (std::nothrow) vlr_request; }

void vlr_request_free(vlr_request* request) { delete request; }

vlr_code vlr_request_from_json(const char* json, vlr_request** out, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!json || !out) return missing(json ? "out" : "json");
    *out = nullptr;
    VLR_ASSIGN_OR_RETURN(vlr::ParsedRequest parsed, vlr::parse_request(json));
    *out = new vlr_request{std::move(parsed.request)};
    return {};
  });
}

vlr_code vlr_request_set_instruction(vlr_request* request, const char* text, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!request || !text) return missing(request ? "text" : "request");
    request->request.instruction = text;
    return {};
  });
}

vlr_code vlr_request_set_media_root(vlr_request* request, const char* path, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!request || !path) return missing(request ? "path" : "request");
    request->request.media_root = path;
    return {};
  });
}

vlr_code vlr_request_add_document(vlr_request* request, int64_t* index, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!request) return missing("request");
    request->request.documents.emplace_back();
    if (index) *index = std::ssize(request->request.documents) - 1;
    return {};
  });
}

int64_t vlr_request_num_documents(const vlr_request* request) {
  return request ? std::ssize(request->request.documents) : 0;
}

vlr_code vlr_request_add_text(vlr_request* request, int64_t document, const char* text,
                              vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!text) return missing("text");
    c.texts.emplace_back(text);
    return {};
  });
}

vlr_code vlr_request_add_image_file(vlr_request* request, int64_t document, const char* path,
                                    vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!path) return missing("path");
    c.images.push_back({.path = path});
    return {};
  });
}

vlr_code vlr_request_add_image(vlr_request* request, int64_t document, const char* name,
                               const void* data, size_t size, vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!data) return missing("data");
    c.images.push_back(media_of(name ? name : "image", data, size));
    return {};
  });
}

vlr_code vlr_request_add_video_file(vlr_request* request, int64_t document, const char* path,
                                    vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!path) return missing("path");
    c.videos.push_back({.frames = {}, .file = vlr::Media{.path = path}});
    return {};
  });
}

vlr_code vlr_request_add_video(vlr_request* request, int64_t document, const char* name,
                               const void* data, size_t size, vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!data) return missing("data");
    c.videos.push_back({.frames = {}, .file = media_of(name ? name : "video", data, size)});
    return {};
  });
}

vlr_code vlr_request_add_frames(vlr_request* request, int64_t document, const char* const* paths,
                                size_t num_paths, vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    vlr::Video video;
    for (size_t i = 0; i < num_paths; ++i) {
      if (!paths || !paths[i]) return missing("paths");
      video.frames.push_back({.path = paths[i]});
    }
    c.videos.push_back(std::move(video));
    return {};
  });
}

vlr_code vlr_score(vlr_reranker* reranker, const vlr_request* request, vlr_result* results,
                   vlr_on_result on_result, void* user, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !request) return missing(reranker ? "request" : "reranker");
    if (!results && !request->request.documents.empty()) return missing("results");
    const auto forward = [&](const vlr::DocumentResult& r) {
      if (!on_result) return;
      const vlr_result result = result_of(r);
      on_result(user, &result);
    };
    VLR_ASSIGN_OR_RETURN(const vlr::Response response,
                         reranker->reranker.score(request->request, forward));
    std::transform(response.results.begin(), response.results.end(), results, result_of);
    return {};
  });
}

vlr_code vlr_score_json(vlr_reranker* reranker, const vlr_request* request, int explain,
                        char** json, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !request || !json)
      return missing(!reranker ? "reranker" : !request ? "request" : "json");
    *json = nullptr;
    VLR_ASSIGN_OR_RETURN(const vlr::Response response, reranker->reranker.score(request->request));
    std::vector<vlr::Explanation> explanations;
    if (explain) {
      VLR_ASSIGN_OR_RETURN(explanations, reranker->reranker.explain(request->request));
    }
    *json = copy_string(
        vlr::response_json(response, &response.usage, reranker->reranker, explanations, -1));
    return *json ? Status() : Status(Code::kOutOfMemory, "host memory");
  });
}

vlr_code vlr_prefetch(vlr_reranker* reranker, const vlr_request* request, int64_t* num_failed,
                      vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !request) return missing(reranker ? "request" : "reranker");
    VLR_ASSIGN_OR_RETURN(const vlr::PrefetchResult fetched,
                         reranker->reranker.prefetch(request->request));
    if (num_failed) {
      *num_failed = std::count_if(
          fetched.media.begin(), fetched.media.end(),
          [](const vlr::MediaResult& r) { return r.status != vlr::DocumentStatus::kOk; });
    }
    return {};
  });
}

void vlr_cancel(vlr_reranker* reranker) {
  if (reranker) reranker->reranker.cancel();
}

vlr_code vlr_plan(const char* path, const vlr_options* options, int64_t documents, int64_t tokens,
                  int64_t* bytes, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!path || !bytes) return missing(path ? "bytes" : "path");
    VLR_ASSIGN_OR_RETURN(
        const vlr::MemoryPlan plan,
        vlr::Reranker::plan(path, options_of(options),
                            {.documents = documents, .tokens_per_document = tokens}));
    *bytes = plan.total();
    return {};
  });
}

void vlr_string_free(char* text) { std::free(text); }

}  // extern "C"
