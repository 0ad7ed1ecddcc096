// What a reranker says, as JSON.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "multimodal/source.h"
#include "vlr/json.h"

namespace vlr {
namespace {

using nlohmann::ordered_json;

/// Messages may quote bytes that are no UTF-8.
std::string text_of(const ordered_json& json, const JsonStyle& style) {
  return json.dump(style.indent, ' ', false, ordered_json::error_handler_t::replace);
}

/// Nine digits bring every f32 back.
ordered_json f32(float value) { return ordered_json::parse(fmt::format("{:.9g}", value)); }

ordered_json explain_of(const Explanation& e) {
  ordered_json out = {{"prompt", e.prompt},
                      {"num_tokens_before_truncation", e.num_tokens_before_truncation},
                      {"prefix_tokens", e.prefix_tokens},
                      {"token_ids", e.token_ids},
                      {"image_grid_thw", e.image_grids},
                      {"video_grid_thw", e.video_grids}};
  const auto tokens = std::ssize(e.token_ids);
  for (int64_t axis = 0; tokens > 0 && axis < 3; ++axis) {
    const auto begin = e.positions.begin() + axis * tokens;
    out["position_ids"].push_back(std::vector<int32_t>(begin, begin + tokens));
  }
  return out;
}

/// A side as a request spells it; media by reference.
ordered_json side_of(const Content& c) {
  ordered_json out = ordered_json::object();
  const auto add = [&](const char* key, ordered_json values) {
    if (!values.empty()) out[key] = values.size() == 1 ? values[0] : values;
  };
  ordered_json images = ordered_json::array(), videos = ordered_json::array();
  for (const Media& m : c.images) images.push_back(describe_source(m.path));
  for (const Video& v : c.videos) {
    ordered_json frames = ordered_json::array();
    for (const Media& m : v.frames) frames.push_back(describe_source(m.path));
    videos.push_back(v.file ? ordered_json(describe_source(v.file->path)) : frames);
  }
  add("text", c.texts);
  add("image", std::move(images));
  add("video", std::move(videos));
  return out;
}

/// Which results are shown, in which order: all, or the best `top_n` and what was not scored.
std::vector<size_t> shown(const Response& response, int64_t top_n) {
  const std::vector<DocumentResult>& all = response.results;
  std::vector<size_t> out(all.size());
  std::iota(out.begin(), out.end(), size_t{0});
  if (top_n == 0) return out;
  std::stable_sort(out.begin(), out.end(), [&](size_t a, size_t b) {
    if (all[a].scored() != all[b].scored()) return all[a].scored();
    return all[a].scored() && all[a].log_odds > all[b].log_odds;
  });
  const auto failed =
      std::find_if(out.begin(), out.end(), [&](size_t i) { return !all[i].scored(); });
  if (failed - out.begin() > top_n) out.erase(out.begin() + top_n, failed);
  return out;
}

ordered_json result_of(const DocumentResult& r) {
  ordered_json out = {{"index", r.index}, {"status", document_status_name(r.status)}};
  if (!r.message.empty()) out["message"] = r.message;
  if (!r.scored()) return out;
  out["score"] = f32(r.score);
  out["log_odds"] = f32(r.log_odds);
  out["num_tokens"] = r.num_tokens;
  out["truncated"] = r.truncated;
  return out;
}

ordered_json usage_of(const Usage& usage) {
  const auto seconds = [](double s) { return std::round(s * 1e6) / 1e6; };
  return {{"tokens", usage.tokens},
          {"shared_prefix_tokens", usage.shared_prefix_tokens},
          {"image_tokens", usage.image_tokens},
          {"batches", usage.batches},
          {"decoded_media", usage.decoded_media},
          {"vision_batches", usage.vision_batches},
          {"vision_cache_hits", usage.vision_cache_hits},
          {"prefix_cache_hits", usage.prefix_cache_hits},
          {"replayed_batches", usage.replayed_batches},
          {"seconds",
           {{"load", seconds(usage.seconds.load)},
            {"media", seconds(usage.seconds.media)},
            {"prompt", seconds(usage.seconds.prompt)},
            {"vision", seconds(usage.seconds.vision)},
            {"text", seconds(usage.seconds.text)},
            {"total", seconds(usage.seconds.total)}}}};
}

ordered_json parts_of(const std::vector<MemoryPlan::Part>& parts) {
  ordered_json out = ordered_json::array();
  for (const MemoryPlan::Part& p : parts) out.push_back({{"name", p.name}, {"bytes", p.bytes}});
  return out;
}

}  // namespace

std::string response_json(const Response& response, const Reranker& reranker,
                          std::span<const Explanation> explanations, const JsonStyle& style) {
  ordered_json out = {{"model", reranker.model_name()},
                      {"device", reranker.device()},
                      {"dtype", reranker.dtype()},
                      {"quant", reranker.quant()}};
  ordered_json& results = out["results"] = ordered_json::array();
  const Request* const request = style.request;
  for (const size_t i : shown(response, request ? request->top_n.value_or(0) : 0)) {
    ordered_json item = result_of(response.results[i]);
    if (request && request->return_documents && i < request->documents.size())
      item["document"] = side_of(request->documents[i]);
    if (i < explanations.size()) item["explain"] = explain_of(explanations[i]);
    results.push_back(std::move(item));
  }
  if (request && !request->warnings.empty()) out["warnings"] = request->warnings;
  if (style.usage) out["usage"] = usage_of(response.usage);
  return text_of(out, style);
}

std::string explanations_json(std::span<const Explanation> explanations, const JsonStyle& style) {
  ordered_json out;
  ordered_json& results = out["results"] = ordered_json::array();
  for (const Explanation& e : explanations) {
    ordered_json item = {{"index", e.result.index},
                         {"status", document_status_name(e.result.status)}};
    if (!e.result.message.empty()) item["message"] = e.result.message;
    item["explain"] = explain_of(e);
    results.push_back(std::move(item));
  }
  return text_of(out, style);
}

std::string prefetch_json(const PrefetchResult& result, const JsonStyle& style) {
  ordered_json out;
  ordered_json& media = out["media"] = ordered_json::array();
  for (const MediaResult& m : result.media) {
    ordered_json item = {{"name", m.name}, {"status", document_status_name(m.status)}};
    if (!m.message.empty()) item["message"] = m.message;
    item["tokens"] = m.tokens;
    item["was_cached"] = m.was_cached;
    media.push_back(std::move(item));
  }
  if (style.usage) out["usage"] = usage_of(result.usage);
  return text_of(out, style);
}

std::string usage_json(const Usage& usage, const JsonStyle& style) {
  return text_of(usage_of(usage), style);
}

std::string memory_plan_json(const MemoryPlan& plan, const JsonStyle& style) {
  ordered_json out = ordered_json::object();
  if (!plan.preset.empty()) out["preset"] = plan.preset;
  out["parts"] = parts_of(plan.parts);
  out["total"] = plan.total();
  out["host_parts"] = parts_of(plan.host_parts);
  if (plan.disk_bytes() > 0) out["disk_bytes"] = plan.disk_bytes();
  ordered_json& layers = out["layers"] = ordered_json::array();
  for (const MemoryPlan::Layer& l : plan.layers)
    layers.push_back({{"name", l.name},
                      {"device_bytes", l.device_bytes},
                      {"host_bytes", l.host_bytes},
                      {"disk_bytes", l.disk_bytes}});
  if (plan.cap > 0) out["cap"] = plan.cap;
  if (plan.smallest_cap > 0) out["smallest_cap"] = plan.smallest_cap;
  for (const MemoryPlan::Choice& c : plan.choices) out["choices"][c.name] = c.value;
  for (const auto& [pass, picture] : plan.pictures) out["pictures"][pass] = picture;
  return text_of(out, style);
}

}  // namespace vlr
