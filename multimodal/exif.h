/// How a picture is to be turned before it is seen: the orientation tag of EXIF.
#ifndef VLR_MULTIMODAL_EXIF_H_
#define VLR_MULTIMODAL_EXIF_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr::media {

/// The value of an integer tag in the first directory of a TIFF, which is also what EXIF is made
/// of. Nothing when there is no such tag, or a damaged entry before it; read as Pillow does.
std::optional<uint32_t> tiff_tag(std::span<const uint8_t> tiff, uint32_t tag);

/// Orientation 1 to 8 of the EXIF in a JPEG (APP1), PNG (eXIf) or WebP (EXIF) file, or what an AVIF
/// says in its container; 1, upright, when there is none or it is damaged, and for all other
/// formats: a TIFF's is applied when it is decoded.
int exif_orientation(std::span<const std::byte> file);

/// The picture as it is to be seen, as Pillow's ImageOps.exif_transpose: 2-4 mirror it, 5-8 swap
/// its sides first. kOutOfMemory.
Result<Image> oriented(Image image, int orientation);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_EXIF_H_
