/// Video files: which of their frames the model sees, decoded, resized and cut up into patches.
#ifndef VLR_MULTIMODAL_VIDEO_H_
#define VLR_MULTIMODAL_VIDEO_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "multimodal/media.h"
#include "multimodal/patchify.h"
#include "vlr/status.h"

namespace vlr {

enum class VideoSampling {
  kOfficial,     ///< fps frames a second, at most max_frames: official_frames()
  kUniformEnds,  ///< num_frames frames, the first and the last among them: uniform_frames()
};

/// Defaults are the reference's.
struct VideoOptions {
  VideoSampling sampling = VideoSampling::kOfficial;
  double fps = 1;           ///< official: frames a second
  int64_t max_frames = 64;  ///< official: at most
  int64_t num_frames = 8;   ///< uniform with both ends
  /// Packets of a file; each costs some 400 bytes. 2^20 are ten hours at 30 a second.
  int64_t max_packets = 1 << 20;
  int threads = 1;  ///< of the decoder; an engine decodes several videos at once instead
};

/// What it took.
struct VideoStats {
  int64_t num_frames = 0;   ///< in the file
  int64_t num_taken = 0;    ///< as frames of the model
  int64_t num_decoded = 0;  ///< pictures that came out of the decoder
};

/// The frames of a video file that the model sees, as patches. docs/media.md says which files, how
/// frames are counted and what their colours are. Of `media` only `limits`, of a frame, `memory`
/// and `max_patch_bytes` count. Needs as much memory as the file's coded pictures, one decoded
/// frame, and the patches.
///
/// kInvalidArgument: not a video, no video stream, too few frames, more pixels, packets or patches
/// than allowed; kDataLoss: damaged or truncated; kUnimplemented: encrypted, a codec that FFmpeg
/// lacks, or a build without FFmpeg; kOutOfMemory. Messages do not name the file.
Result<Patches> load_video(std::span<const std::byte> bytes, const VideoOptions& options = {},
                           const MediaOptions& media = {}, VideoStats* stats = nullptr);

/// Whether the first bytes are those of a kind of file that load_video() takes and decode_image()
/// does not. Animated GIFs and sequences of AVIF are pictures.
bool looks_like_video(std::span<const std::byte> bytes);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_VIDEO_H_
