/// Decoding of still pictures to 8-bit RGB, with the pixels that Pillow's Image.open(...) and the
/// reference's conversion to RGB give.
#ifndef VLR_MULTIMODAL_IMAGE_H_
#define VLR_MULTIMODAL_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
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
  /// The longer side over the shorter one; the model's resizing takes no more than smart_resize()'s
  /// 200, so there is no use in decoding what is longer. 0: any.
  int64_t max_aspect_ratio = 0;
};

/// The first frame of the picture in `bytes`, whose format is told by its first bytes.
///
/// JPEG, PNG, WebP, GIF and BMP always; TIFF, AVIF, JPEG 2000 and PNM in builds with FFmpeg, HEIC in
/// builds with libheif.
/// Pictures of mode RGBA are composited over white, in all others transparency is dropped. ICC
/// profiles and gamma are not looked at, nor is EXIF orientation, but for that of a TIFF.
///
/// kInvalidArgument: not a picture, or more pixels than allowed; kDataLoss: damaged or truncated;
/// kUnimplemented: a kind of picture that this build cannot decode; kOutOfMemory.
Result<Image> decode_image(std::span<const std::byte> bytes, const DecodeLimits& limits = {});

/// Whether the first bytes are those of a format that decode_image() knows, in some build. BMP and
/// PNM, whose first two bytes a text may well have, have to go on like pictures, too.
bool looks_like_image(std::span<const std::byte> bytes);

/// Takes a picture row by row, from the top, so that no one needs to hold all of it.
class RowSink {
 public:
  virtual ~RowSink() = default;
  /// Once, before all rows. An error ends the decoding.
  virtual Status start(int64_t width, int64_t height) = 0;
  /// Where the next rows are to be written: [n, width, 3] for an n of 1 or more.
  virtual std::span<uint8_t> buffer() = 0;
  /// That the buffer's first num_rows rows are filled.
  virtual void put(int64_t num_rows) = 0;
};

/// The sink that keeps all rows.
class ImageSink : public RowSink {
 public:
  Status start(int64_t width, int64_t height) override;
  std::span<uint8_t> buffer() override { return left_; }
  void put(int64_t num_rows) override;
  Image take() { return std::move(image_); }

 private:
  Image image_;
  std::span<uint8_t> left_;
};

/// The same rows as decode_image(). JPEG is decoded while the sink takes it, anything else before.
/// After an error the sink may have got some of the rows.
Status decode_rows(std::span<const std::byte> bytes, const DecodeLimits& limits, RowSink& sink);

/// All rows of a picture that is there already.
Status put_image(const Image& image, RowSink& sink);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_IMAGE_H_
