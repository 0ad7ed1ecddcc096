// Any bytes through decode_image() and, when they are a picture, through load_image(), turned as
// their EXIF says. Sizes are limited so that an input costs milliseconds; the formats' headers are
// hostile all the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "multimodal/media.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const vlr::MediaOptions options = {.max_pixels = 64 * 1024, .limits = {.max_pixels = 64 * 1024}};
  const auto bytes = std::as_bytes(std::span(data, size));
  const vlr::Result<vlr::Image> image = vlr::decode_image(bytes, options.limits);
  if (!image.ok()) {
    if (image.error().message().empty()) std::abort();
    return 0;
  }
  if (image->width * image->height > options.limits.max_pixels ||
      image->rgb.size() != static_cast<size_t>(3 * image->width * image->height)) {
    std::abort();
  }
  vlr::MediaOptions turned = options;
  turned.exif = true;
  const vlr::Result<vlr::Patches> patches = vlr::load_image(bytes, turned);
  if (patches.ok() &&
      patches->data.size() !=
          static_cast<size_t>(patches->grid_h * patches->grid_w * vlr::kPatchValues)) {
    std::abort();
  }
  return 0;
}
