/// What the engine asks for: bytes of a picture, or of the frames of a video, to patches.
#ifndef VLR_MULTIMODAL_MEDIA_H_
#define VLR_MULTIMODAL_MEDIA_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "multimodal/image.h"
#include "multimodal/patchify.h"
#include "multimodal/resize.h"
#include "vlr/status.h"

namespace vlr {

/// Defaults are the reference's.
struct MediaOptions {
  int64_t min_pixels = 4 * 1024;  ///< of a picture, after resizing
  int64_t max_pixels = 1800 * 1024;
  int64_t total_pixels = 7680 * 1024;  ///< of all frames of a frame list together
  int64_t max_frames = 64;             ///< longer frame lists are thinned out
  double sample_fps = 2;               ///< frames a second of a frame list: times come from it
  /// Sides of the frames of a frame list are first rounded to multiples of this: 32, or 64 as the
  /// reference does with the qwen-vl-utils 0.0.14 of PyPI.
  int64_t frame_factor = 32;
  /// Turn pictures as their EXIF says (JPEG, PNG and WebP), before they are resized. The reference
  /// does not.
  bool exif = false;
  DecodeLimits limits = {.max_aspect_ratio = 200};
  /// Of the patches of one picture or video, after resizing: 6 bytes a pixel of a pair of frames.
  int64_t max_patch_bytes = int64_t{2} << 30;
  PatchMemory memory = {};  ///< of the patches; null: the heap
};

/// Versions of what decodes in this build and on this machine: with others, pixels may be others.
std::string decoder_versions();

/// kInvalidArgument: the patches of grid_t pairs of frames of this size, multiples of 32, are more
/// than options.max_patch_bytes. What load_image(), load_frames() and load_video() ask before they
/// allocate.
Status check_patch_bytes(int64_t grid_t, Size size, const MediaOptions& options);

/// Decodes, resizes and cuts up one picture.
Result<Patches> load_image(std::span<const std::byte> bytes, const MediaOptions& options = {});

/// Gives the bytes of frame i of a list; they have to stay until the next call.
using FrameSource = std::function<Result<std::span<const std::byte>>(int64_t index)>;

/// A video given as a list of pictures, options.sample_fps of them a second. Of num_frames frames at
/// most max_frames are asked for, in order, each once; they must have equal sizes. Errors name the
/// frame.
Result<Patches> load_frames(int64_t num_frames, const FrameSource& frame,
                            const MediaOptions& options = {});

/// The two sizes that a frame of a list goes through: `picture`, as if it were a picture of its
/// own, by Pillow's filter; then `video`, which depends on how many frames share the pixels, by
/// torchvision's.
struct FrameSizes {
  Size picture;
  Size video;
};
Result<FrameSizes> frame_sizes(Size frame, int64_t num_frames, const MediaOptions& options = {});

/// Which frames of a list are used: all of them, or max_frames evenly spread with the first and the
/// last.
std::vector<int64_t> thin_frames(int64_t num_frames, int64_t max_frames);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_MEDIA_H_
