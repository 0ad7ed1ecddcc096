#include "multimodal/video.h"

#include <fmt/format.h>

#include <new>
#include <utility>
#include <vector>

#include "multimodal/video_file.h"
#include "multimodal/video_sampling.h"

namespace vlr {
namespace {

Result<std::vector<int64_t>> pick_frames(const VideoFile& file, const VideoOptions& options) {
  return options.sampling == VideoSampling::kOfficial
             ? official_frames(file.num_frames(), file.frame_rate(), options.fps,
                               options.max_frames)
             : uniform_frames(file.num_frames(), options.num_frames);
}

// The reference has no times but a frame's number over the average rate.
double time_of(const VideoFile& file, int64_t frame, VideoSampling sampling) {
  return sampling == VideoSampling::kOfficial ? static_cast<double>(frame) / file.frame_rate()
                                              : file.seconds(frame);
}

}  // namespace

Result<Patches> load_video(std::span<const std::byte> bytes, const VideoOptions& options,
                           const MediaOptions& media, VideoStats* stats) try {
  VLR_ASSIGN_OR_RETURN(
      VideoFile file, VideoFile::open(bytes, {media.limits, options.max_packets, options.threads}));
  const Result<std::vector<int64_t>> picked = pick_frames(file, options);
  if (!picked) return picked.error().with_context("video");
  const auto count = static_cast<int64_t>(picked->size());

  // One frame at a time is in memory.
  Patches patches;
  Size size;
  std::vector<double> seconds;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = (*picked)[static_cast<size_t>(i)];
    VLR_ASSIGN_OR_RETURN(Image image, file.read(index));
    if (i == 0) {
      const Result<Size> target = video_size({image.height, image.width}, count);
      if (!target) return target.error().with_context("video");
      size = *target;
      const int64_t grid_t = (count + 1) / kTemporalPatchSize;
      VLR_RETURN_IF_ERROR(check_patch_bytes(grid_t, size, media).with_context("video"));
      VLR_ASSIGN_OR_RETURN(patches, make_patches(grid_t, size.height, size.width, media.memory));
    }
    VLR_ASSIGN_OR_RETURN(image, resize_torchvision_bicubic(image, size));
    VLR_RETURN_IF_ERROR(put_frame(image, i, patches));
    const bool pairs_with_itself = i == count - 1 && i % kTemporalPatchSize == 0;
    if (pairs_with_itself) VLR_RETURN_IF_ERROR(put_frame(image, i + 1, patches));
    seconds.push_back(time_of(file, index, options.sampling));
  }
  patches.seconds = pair_seconds(seconds);
  if (stats) *stats = {file.num_frames(), count, file.num_decoded()};
  return patches;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "load_video: no host memory"};
}

}  // namespace vlr
