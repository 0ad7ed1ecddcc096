/// Target sizes, and the two bicubic filters of the reference: Pillow's and torchvision's.
#ifndef VLR_MULTIMODAL_RESIZE_H_
#define VLR_MULTIMODAL_RESIZE_H_

#include <cstdint>
#include <memory>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr {

struct Size {
  int64_t height = 0;
  int64_t width = 0;
  bool operator==(const Size&) const = default;
};

/// The size nearest to height x width whose sides are multiples of `factor` and whose area lies
/// within [min_pixels, max_pixels], as the reference rounds it (sides are multiples first, then
/// scaled). kInvalidArgument: one side is more than 200 times the other, or nothing is left of a
/// side.
Result<Size> smart_resize(int64_t height, int64_t width, int64_t factor, double min_pixels,
                          double max_pixels);

/// Pillow's Image.resize(..., BICUBIC) of an RGB picture, bit for bit: horizontal pass, 8-bit
/// rounding, vertical pass; a pass is left out where the size stays.
Result<Image> resize_pillow_bicubic(const Image& image, Size size);

/// The same for rows as they come, from the top: a picture is resized while it is decoded, within
/// the cache. What is put into it goes on to `next`, which has to outlive it.
std::unique_ptr<RowSink> pillow_bicubic_sink(Size size, RowSink& next);

/// torchvision's resize(..., BICUBIC, antialias=True) of uint8: the same filter in float32 with one
/// rounding at the end. Equal but for +-1 on less than 0.1 % of values.
Result<Image> resize_torchvision_bicubic(const Image& image, Size size);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_RESIZE_H_
