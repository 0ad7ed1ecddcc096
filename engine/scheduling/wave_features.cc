#include "engine/scheduling/wave_features.h"

#include <map>

namespace vlr {

WaveFeatures::Sorted WaveFeatures::look_up(Wave& wave, const std::vector<bool>& needed) {
  Sorted out;
  for (size_t m = 0; m < wave.media.size(); ++m) {
    LoadedMedia& media = wave.media[m];
    media.first_row = -1;
    if (!needed[m]) continue;
    // An earlier group may have run it since it was decoded.
    if (cache_ && !media.features && cache_->in_memory(media.content))
      media.features = cache_->find(media.content, media.tokens() * runner_.feature_row_bytes());
    (media.features ? out.cached : out.others).push_back(&media);
  }
  return out;
}

/// What the tower is to see, equal media once, and the rows that it will make.
std::vector<VisionInput> WaveFeatures::tower_inputs(const MediaList& media, int64_t& rows) const {
  std::vector<VisionInput> inputs;
  std::map<Hash128, int64_t> row_of;
  for (LoadedMedia* m : media) {
    const auto [same, is_new] = row_of.try_emplace(m->content, rows);
    m->first_row = same->second;
    if (!is_new) continue;
    const Patches& p = *m->patches;
    inputs.push_back({.grid_t = p.grid_t,
                      .grid_h = p.grid_h,
                      .grid_w = p.grid_w,
                      .patches = p.data,
                      .owner = device_.is_gpu() ? p.owner : nullptr});
    rows += m->tokens();
  }
  return inputs;
}

Status WaveFeatures::compute(Wave& wave, const std::vector<bool>& needed, Usage& usage) {
  const Sorted media = look_up(wave, needed);
  int64_t rows = 0;
  const std::vector<VisionInput> inputs = tower_inputs(media.others, rows);
  usage.image_tokens += rows;
  const int64_t first_cached = rows;
  for (LoadedMedia* m : media.cached) {
    m->first_row = rows;
    rows += m->tokens();
  }
  VLR_ASSIGN_OR_RETURN(const int64_t batches,
                       runner_.run_vision(inputs, limits_.patches, features_, rows - first_cached));
  usage.vision_batches += batches;
  usage.vision_cache_hits += std::ssize(media.cached);
  for (const LoadedMedia* m : media.cached) {
    VLR_RETURN_IF_ERROR(
        runner_.load_features(m->features->pieces, m->first_row, m->tokens(), features_));
  }
  if (!cache_) return {};
  for (const LoadedMedia* m : media.others) VLR_RETURN_IF_ERROR(keep(*m, true));
  // What came from the folder gets a place in memory too.
  for (const LoadedMedia* m : media.cached) VLR_RETURN_IF_ERROR(keep(*m, false));
  return {};
}

/// Copies a medium's rows to the cache's memory, if it has room; `write`: also to its folder, later.
Status WaveFeatures::keep(const LoadedMedia& media, bool write) {
  if (cache_->in_memory(media.content)) return {};
  const int64_t bytes = media.tokens() * runner_.feature_row_bytes();
  auto kept = cache_->add(media.content, bytes);
  if (!kept && !unwritten_.empty()) {  // what waits for the disk cannot make room
    VLR_RETURN_IF_ERROR(write_to_folder());
    kept = cache_->add(media.content, bytes);
  }
  if (!kept) return {};
  if (const Status s =
          runner_.save_features(features_, media.first_row, media.tokens(), kept->pieces);
      !s.ok()) {
    cache_->forget(media.content);
    return s;
  }
  if (write && cache_->folder()) unwritten_.push_back({media.content, kept});
  return {};
}

Status WaveFeatures::write_to_folder() {
  if (unwritten_.empty()) return {};
  VLR_RETURN_IF_ERROR(device_.synchronize());
  threads_.parallel_for(std::ssize(unwritten_), [&](int64_t i, int) {
    const New& n = unwritten_[static_cast<size_t>(i)];
    if (!cache_->folder()->has_features(n.content))
      cache_->folder()->write_features(n.content, n.features->pieces);
  });
  unwritten_.clear();
  return {};
}

}  // namespace vlr
