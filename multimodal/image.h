/// Decoding of still pictures to 8-bit RGB, with the pixels that Pillow's Image.open(...) and the
/// reference's conversion to RGB give.
#ifndef VLR_MULTIMODAL_IMAGE_H_
#define VLR_MULTIMODAL_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vlr/status.h"

namespace vlr {

struct Image {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

struct DecodeLimits {
  /// Width times height; known from the header and checked before pixels are allocated.
  /// The default is where Pillow refuses a picture as a decompression bomb.
  int64_t max_pixels = 178'956'970;
};

/// The first frame of the picture in `bytes`, whose format is told by its first bytes.
///
/// JPEG, PNG, WebP, GIF and BMP always; TIFF, AVIF, JPEG 2000 and PNM in builds with FFmpeg.
/// Pictures of mode RGBA are composited over white, in all others transparency is dropped. ICC
/// profiles and gamma are not looked at, nor is EXIF orientation, but for that of a TIFF.
///
/// kInvalidArgument: not a picture, or more pixels than allowed; kDataLoss: damaged or truncated;
/// kUnimplemented: a kind of picture that this build cannot decode; kOutOfMemory.
Result<Image> decode_image(std::span<const std::byte> bytes, const DecodeLimits& limits = {});

}  // namespace vlr

#endif  // VLR_MULTIMODAL_IMAGE_H_
