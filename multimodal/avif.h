/// The container of AVIF: which bytes are the picture, and which its transparency.
/// Source: ISO/IEC 14496-12 (boxes, items) and 23008-12 (properties of pictures), AVIF 1.1.
#ifndef VLR_MULTIMODAL_AVIF_H_
#define VLR_MULTIMODAL_AVIF_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vlr/status.h"

namespace vlr::media {

struct AvifItems {
  std::vector<uint8_t> color;  ///< AV1 of the primary picture
  std::vector<uint8_t> alpha;  ///< AV1 of its transparency; empty when it has none
  bool premultiplied = false;
  int64_t width = 0, height = 0;  ///< as declared; 0 when not
  int orientation = 1;            ///< of EXIF's kind: what the picture's rotation and mirror are
  /// H.273's code for the matrix from YUV to RGB, and whether samples use their full range; both
  /// override what AV1 says.
  struct Colors {
    int matrix = 0;
    bool full_range = false;
  };
  std::optional<Colors> colors;
};

/// kDataLoss: damaged or truncated; kUnimplemented: a primary picture that is not AV1 (a grid of
/// pictures, for one), or none (a sequence alone).
Result<AvifItems> read_avif(std::span<const uint8_t> file);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_AVIF_H_
