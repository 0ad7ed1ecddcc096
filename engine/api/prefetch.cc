#include "engine/api/prefetch.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/placement/memory_planner.h"

namespace vlr {

Prefetch::Prefetch(const Request& request, Preprocessor& preprocessor, Replica& replica,
                   VisionCache& cache, int64_t cache_bytes)
    : request_(request),
      preprocessor_(preprocessor),
      replica_(replica),
      cache_(cache),
      most_rows_(std::min(replica.limits().visual_rows,
                          cache_bytes / replica.runner().feature_row_bytes())) {}

Result<PrefetchResult> Prefetch::run() {
  preprocessor_.begin_call();
  VLR_RETURN_IF_ERROR(add_content(request_.query));
  for (const Content& document : request_.documents) VLR_RETURN_IF_ERROR(add_content(document));
  return std::move(out_);
}

/// Videos before images, some at a time.
Status Prefetch::add_content(const Content& content) {
  Content part;
  const auto add = [&](auto& list, const auto& item) -> Status {
    list.push_back(item);
    if (std::ssize(part.images) + std::ssize(part.videos) < kChunkMedia) return {};
    return add_part(std::exchange(part, {}));
  };
  for (const Video& v : content.videos) VLR_RETURN_IF_ERROR(add(part.videos, v));
  for (const Media& m : content.images) VLR_RETURN_IF_ERROR(add(part.images, m));
  return part.images.empty() && part.videos.empty() ? Status() : add_part(part);
}

Status Prefetch::add_part(const Content& part) {
  Wave wave;
  const std::vector<size_t> loaded = preprocessor_.load_media(part, request_, wave);
  out_.usage.seconds.media += wave.seconds.media;
  out_.usage.decoded_media += wave.decoded;
  Batch batch(wave.media.size());
  for (const size_t m : loaded) {
    const LoadedMedia& medium = wave.media[m];
    MediaResult& result = out_.media.emplace_back();
    result.name = medium.name;
    if (!fits(medium, result)) continue;
    result.status = DocumentStatus::kOk;
    result.was_cached = medium.features != nullptr;
    const int64_t rows = result.tokens;
    if (batch.rows + rows > most_rows_) VLR_RETURN_IF_ERROR(run_batch(wave, batch));
    batch.needed[m] = true;
    batch.members.emplace_back(m, out_.media.size() - 1);
    batch.rows += rows;
  }
  VLR_RETURN_IF_ERROR(run_batch(wave, batch));
  return replica_.device().synchronize();  // the wave's patches go away
}

/// Whether the tower and the cache can take a medium; says in its result why not.
bool Prefetch::fits(const LoadedMedia& medium, MediaResult& result) const {
  if (!medium.patches) {
    result.message = medium.patches.error().message();
    return false;
  }
  result.tokens = medium.tokens();
  const int64_t frame = medium.patches->grid_h * medium.patches->grid_w;
  if (frame > replica_.limits().frame_patches) {
    result.status = DocumentStatus::kTooLong;
    result.message = fmt::format("{}: a picture of {} patches, the memory cap allows {}",
                                 medium.name, frame, replica_.limits().frame_patches);
    return false;
  }
  if (result.tokens > most_rows_) {
    result.status = DocumentStatus::kTooLong;
    result.message =
        fmt::format("{}: {} visual tokens, the cache and the memory cap have room for {}",
                    medium.name, result.tokens, most_rows_);
    return false;
  }
  return true;
}

/// Features of what was collected, into the cache; then nothing is collected any more.
Status Prefetch::run_batch(Wave& wave, Batch& batch) {
  WaveFeatures& features = replica_.scorer().features();
  OpenDevice& device = replica_.device();
  VLR_ASSIGN_OR_RETURN(const OpenDevice::Mark start, device.mark(true));
  VLR_RETURN_IF_ERROR(features.compute(wave, batch.needed, out_.usage));
  VLR_ASSIGN_OR_RETURN(const OpenDevice::Mark end, device.mark(true));
  VLR_RETURN_IF_ERROR(device.wait(end));
  VLR_ASSIGN_OR_RETURN(const double vision, device.seconds_between(start, end));
  out_.usage.seconds.vision += vision;
  VLR_RETURN_IF_ERROR(features.write_to_folder());
  for (const auto& [m, index] : batch.members) {
    const Hash128& content = wave.media[m].content;
    VisionCacheFolder* folder = cache_.folder();
    if (folder ? folder->has_features(content) : cache_.in_memory(content)) continue;
    out_.media[index].status = DocumentStatus::kError;
    out_.media[index].message = fmt::format("{}: its features could not be {}", wave.media[m].name,
                                            folder ? "written to the cache's folder" : "kept");
  }
  batch = Batch(wave.media.size());
  return {};
}

}  // namespace vlr
