/// The C API's requests.
#include "engine/api/c_api.h"
#include "engine/api/request_json.h"
#include "vlr/json.h"

using namespace vlr::c_api;
using vlr::Code;
using vlr::Status;

namespace {

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

}  // namespace

extern "C" {

vlr_request* vlr_request_new(void) { return new (std::nothrow) vlr_request; }

void vlr_request_free(vlr_request* request) { delete request; }

vlr_code vlr_request_from_json(const char* json, vlr_request** out, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!json || !out) return missing(json ? "out" : "json");
    *out = nullptr;
    VLR_ASSIGN_OR_RETURN(vlr::Request request, vlr::request_from_json(json));
    *out = new vlr_request{std::move(request)};
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

vlr_code vlr_request_set_number(vlr_request* request, const char* key, double value,
                                vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!request || !key) return missing(request ? "key" : "request");
    return vlr::set_request_number(request->request, key, value);
  });
}

vlr_code vlr_request_set_fps(vlr_request* request, double fps, vlr_error* error) {
  return vlr_request_set_number(request, "fps", fps, error);
}

vlr_code vlr_request_set_max_frames(vlr_request* request, int64_t max_frames, vlr_error* error) {
  return vlr_request_set_number(request, "max_frames", static_cast<double>(max_frames), error);
}

vlr_code vlr_request_set_return_documents(vlr_request* request, int on, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!request) return missing("request");
    request->request.return_documents = on != 0;
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

vlr_code vlr_request_add_text_n(vlr_request* request, int64_t document, const char* text,
                                size_t size, vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!text && size > 0) return missing("text");
    c.texts.emplace_back(text ? text : "", size);
    return {};
  });
}

vlr_code vlr_request_set_document_error(vlr_request* request, int64_t document, const char* message,
                                        vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (!message) return missing("message");
    c.error = message;
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

vlr_code vlr_request_add_frames_data(vlr_request* request, int64_t document, const char* name,
                                     const void* const* data, const size_t* sizes,
                                     size_t num_frames, vlr_error* error) {
  return with_content(request, document, error, [&](vlr::Content& c) -> Status {
    if (num_frames > 0 && !sizes) return missing("sizes");
    vlr::Video video;
    for (size_t i = 0; i < num_frames; ++i) {
      if (!data || !data[i]) return missing("data");
      video.frames.push_back(media_of(name ? name : "frame", data[i], sizes[i]));
    }
    c.videos.push_back(std::move(video));
    return {};
  });
}

}  // extern "C"
