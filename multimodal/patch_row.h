/// The inner loop of patchify: a row of pixels into the patches that it goes through, vectorised.
#ifndef VLR_MULTIMODAL_PATCH_ROW_H_
#define VLR_MULTIMODAL_PATCH_ROW_H_

#include <cstdint>

namespace vlr::media {

/// rgb [num_blocks, 2, 16, 3] -> out: the three colours of 16 pixels apart, where the row lies in
/// its patches. `out` is its place in the first one; `copies` frames of the pair, one behind the
/// other, get it.
void put_patch_row(const uint8_t* rgb, int64_t num_blocks, int64_t copies, uint8_t* out);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_PATCH_ROW_H_
