// Any bytes through looks_like_video() and VideoFile, a part of them through load_video(), whose
// resize costs most. Pixels, packets and frames are limited so that an input costs milliseconds;
// the containers' headers are hostile all the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "multimodal/video.h"
#include "multimodal/video_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 64 << 10) return 0;
  const auto bytes = std::as_bytes(std::span(data, size));
  vlr::looks_like_video(bytes);
  const vlr::MediaOptions media = {.limits = {.max_pixels = 128 * 128}};
  vlr::Result<vlr::VideoFile> file =
      vlr::VideoFile::open(bytes, {.frame = media.limits, .max_packets = 200});
  if (!file.ok()) {
    if (file.error().message().empty()) std::abort();
    return 0;
  }
  const int64_t last = file->num_frames() - 1;
  for (const int64_t i : {last / 2, last, last / 3}) {  // forwards and back
    const vlr::Result<vlr::Image> image = file->read(i);
    if (image.ok() ? image->rgb.size() != static_cast<size_t>(3 * image->width * image->height)
                   : image.error().message().empty()) {
      std::abort();
    }
  }
  if (size % 8 > 1) return 0;
  const vlr::VideoOptions options = {
      .sampling = size % 2 == 0 ? vlr::VideoSampling::kOfficial : vlr::VideoSampling::kUniformEnds,
      .max_frames = 4,
      .num_frames = 3,
      .max_packets = 200};
  vlr::VideoStats stats;
  const vlr::Result<vlr::Patches> patches = vlr::load_video(bytes, options, media, &stats);
  if (!patches.ok()) {
    if (patches.error().message().empty()) std::abort();
    return 0;
  }
  const int64_t pairs = (stats.num_taken + 1) / 2;
  if (patches->grid_t != pairs || static_cast<int64_t>(patches->seconds.size()) != pairs ||
      static_cast<int64_t>(patches->data.size()) !=
          pairs * patches->grid_h * patches->grid_w * vlr::kPatchValues) {
    std::abort();
  }
  return 0;
}
