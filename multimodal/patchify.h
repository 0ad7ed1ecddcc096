/// Frames -> patches: the rows that the vision tower's first layer multiplies.
#ifndef VLR_MULTIMODAL_PATCHIFY_H_
#define VLR_MULTIMODAL_PATCHIFY_H_

#include <cstdint>
#include <vector>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr {

constexpr int64_t kPatchSize = 16;
constexpr int64_t kTemporalPatchSize = 2;
constexpr int64_t kMergeSize = 2;  ///< a block of 2 x 2 patches becomes one token
constexpr int64_t kPatchValues = 3 * kTemporalPatchSize * kPatchSize * kPatchSize;  // 1536

/// The patches of one picture or video, 8 bits a value; the model sees (v - 127.5) / 127.5.
struct Patches {
  int64_t grid_t = 0, grid_h = 0, grid_w = 0;  ///< in patches
  std::vector<uint8_t> data;    // [grid_t * grid_h * grid_w, 1536], a patch is [3, 2, 16, 16]
  std::vector<double> seconds;  // videos only: [grid_t], mean time of each pair of frames
};

/// Patches of grid_t pairs of frames of width x height pixels, still to be filled. kInvalidArgument
/// when a side is not a multiple of 32.
Result<Patches> make_patches(int64_t grid_t, int64_t height, int64_t width);

/// Writes `frame` as frame number `index` of the video; sizes must fit.
/// Order of patches, slow to fast: pair of frames, row of blocks, block, row in the block, column
/// in it.
Status put_frame(const Image& frame, int64_t index, Patches& patches);

/// A picture: a video of two equal frames, without times.
Result<Patches> patchify_image(const Image& image);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_PATCHIFY_H_
