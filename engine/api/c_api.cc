/// The C API's models and scores.
#include "engine/api/c_api.h"

#include <vector>

#include "vlr/json.h"

using namespace vlr::c_api;
using vlr::Code;
using vlr::Status;

namespace {

const vlr::Options& options_of(const vlr_options* options) {
  static const vlr::Options defaults;
  return options ? options->options : defaults;
}

vlr_result result_of(const vlr::DocumentResult& r) {
  vlr_result out{};
  out.request = r.request;
  out.index = r.index;
  out.status = static_cast<vlr_document_status>(r.status);
  out.log_odds = r.log_odds;
  out.score = r.score;
  out.num_tokens = r.num_tokens;
  out.truncated = r.truncated ? 1 : 0;
  copy_text(out.message, r.message);
  return out;
}

vlr_usage usage_of(const vlr::Usage& u) {
  return {.struct_size = sizeof(vlr_usage),
          .tokens = u.tokens,
          .shared_prefix_tokens = u.shared_prefix_tokens,
          .image_tokens = u.image_tokens,
          .batches = u.batches,
          .decoded_media = u.decoded_media,
          .vision_batches = u.vision_batches,
          .vision_cache_hits = u.vision_cache_hits,
          .prefix_cache_hits = u.prefix_cache_hits,
          .replayed_batches = u.replayed_batches,
          .load_seconds = u.seconds.load,
          .media_seconds = u.seconds.media,
          .prompt_seconds = u.seconds.prompt,
          .vision_seconds = u.seconds.vision,
          .text_seconds = u.seconds.text,
          .total_seconds = u.seconds.total};
}

Status score_into(vlr_reranker& reranker, std::span<const vlr::Request> requests,
                  vlr_result* results, size_t result_size, vlr_usage* usage,
                  vlr_on_result on_result, void* user) {
  size_t documents = 0;
  for (const vlr::Request& r : requests) documents += r.documents.size();
  if (documents > 0 && !results) return missing("results");
  if (documents > 0 && (result_size < kFirstResultSize || result_size % alignof(vlr_result) != 0)) {
    return {Code::kInvalidArgument,
            "result_size must be sizeof(vlr_result), got " + std::to_string(result_size)};
  }
  const auto forward = [&](const vlr::DocumentResult& r) {
    if (!on_result) return;
    const vlr_result result = result_of(r);
    on_result(user, &result);
  };
  VLR_ASSIGN_OR_RETURN(const std::vector<vlr::Response> responses,
                       reranker.reranker.score(requests, forward));
  auto* to = reinterpret_cast<char*>(results);
  for (const vlr::Response& response : responses) {
    for (const vlr::DocumentResult& r : response.results) {
      const vlr_result result = result_of(r);
      std::memcpy(to, &result, std::min(result_size, sizeof result));
      to += result_size;
    }
  }
  copy_struct(usage, usage_of(responses.empty() ? vlr::Usage() : responses.front().usage));
  return {};
}

}  // namespace

extern "C" {

const char* vlr_version(void) { return vlr::version(); }

const char* vlr_document_status_name(vlr_document_status status) {
  return vlr::document_status_name(static_cast<vlr::DocumentStatus>(status))
      .data();  // of a literal: terminated
}

void vlr_string_free(char* text) { std::free(text); }

vlr_code vlr_open(const char* path, const vlr_options* options, vlr_reranker** out,
                  vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!path || !out) return missing(path ? "out" : "path");
    *out = nullptr;
    VLR_ASSIGN_OR_RETURN(vlr::Reranker r, vlr::Reranker::open(path, options_of(options)));
    const std::string name(r.model_name()), device(r.device()), dtype(r.dtype()), quant(r.quant()),
        preset(r.preset());
    *out = new vlr_reranker{std::move(r), name, device, dtype, quant, preset};
    return {};
  });
}

void vlr_close(vlr_reranker* reranker) { delete reranker; }

const char* vlr_model_name(const vlr_reranker* r) { return r ? r->model_name.c_str() : ""; }
const char* vlr_device(const vlr_reranker* r) { return r ? r->device.c_str() : ""; }
const char* vlr_dtype(const vlr_reranker* r) { return r ? r->dtype.c_str() : ""; }
const char* vlr_quant(const vlr_reranker* r) { return r ? r->quant.c_str() : ""; }
const char* vlr_preset(const vlr_reranker* r) { return r ? r->preset.c_str() : ""; }

vlr_code vlr_memory_json(const vlr_reranker* reranker, char** json, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !json) return missing(reranker ? "json" : "reranker");
    *json = nullptr;
    return give(vlr::memory_plan_json(reranker->reranker.memory()), json);
  });
}

int64_t vlr_peak_memory(const vlr_reranker* reranker) {
  return reranker ? reranker->reranker.peak_memory() : 0;
}

vlr_code vlr_score(vlr_reranker* reranker, const vlr_request* request, vlr_result* results,
                   size_t result_size, vlr_usage* usage, vlr_on_result on_result, void* user,
                   vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !request) return missing(reranker ? "request" : "reranker");
    return score_into(*reranker, {&request->request, 1}, results, result_size, usage, on_result,
                      user);
  });
}

vlr_code vlr_score_many(vlr_reranker* reranker, const vlr_request* const* requests,
                        size_t num_requests, vlr_result* results, size_t result_size,
                        vlr_usage* usage, vlr_on_result on_result, void* user, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || (!requests && num_requests > 0))
      return missing(reranker ? "requests" : "reranker");
    std::vector<vlr::Request> all;
    for (size_t i = 0; i < num_requests; ++i) {
      if (!requests[i]) return missing("requests[" + std::to_string(i) + "]");
      all.push_back(requests[i]->request);
    }
    return score_into(*reranker, all, results, result_size, usage, on_result, user);
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
    return give(vlr::response_json(response, reranker->reranker, explanations,
                                   {.request = &request->request}),
                json);
  });
}

vlr_code vlr_explain_json(vlr_reranker* reranker, const vlr_request* request, char** json,
                          vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !request || !json)
      return missing(!reranker ? "reranker" : !request ? "request" : "json");
    *json = nullptr;
    VLR_ASSIGN_OR_RETURN(const std::vector<vlr::Explanation> explanations,
                         reranker->reranker.explain(request->request));
    return give(vlr::explanations_json(explanations), json);
  });
}

vlr_code vlr_prefetch(vlr_reranker* reranker, const vlr_request* request, int64_t* num_failed,
                      char** json, vlr_usage* usage, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!reranker || !request) return missing(reranker ? "request" : "reranker");
    if (json) *json = nullptr;
    VLR_ASSIGN_OR_RETURN(const vlr::PrefetchResult fetched,
                         reranker->reranker.prefetch(request->request));
    if (json) VLR_RETURN_IF_ERROR(give(vlr::prefetch_json(fetched), json));
    if (num_failed) {
      *num_failed = std::count_if(
          fetched.media.begin(), fetched.media.end(),
          [](const vlr::MediaResult& r) { return r.status != vlr::DocumentStatus::kOk; });
    }
    copy_struct(usage, usage_of(fetched.usage));
    return {};
  });
}

void vlr_cancel(vlr_reranker* reranker) {
  if (reranker) reranker->reranker.cancel();
}

vlr_code vlr_plan(const char* path, const vlr_options* options, const vlr_workload* workload,
                  int64_t* bytes, char** json, vlr_error* error) {
  return guarded(error, [&]() -> Status {
    if (!path) return missing("path");
    if (json) *json = nullptr;
    vlr_workload w = VLR_WORKLOAD_INIT;
    if (workload) std::memcpy(&w, workload, std::min(workload->struct_size, sizeof w));
    VLR_ASSIGN_OR_RETURN(const vlr::MemoryPlan plan,
                         vlr::Reranker::plan(path, options_of(options),
                                             {.documents = w.documents,
                                              .tokens_per_document = w.tokens_per_document,
                                              .images_per_document = w.images_per_document,
                                              .images_per_query = w.images_per_query,
                                              .patches_per_image = w.patches_per_image,
                                              .pictures = w.pictures != 0}));
    if (json) VLR_RETURN_IF_ERROR(give(vlr::memory_plan_json(plan), json));
    if (bytes) *bytes = plan.total();
    return {};
  });
}

}  // extern "C"

namespace vlr {

const char* version() { return VLR_VERSION; }

}  // namespace vlr
