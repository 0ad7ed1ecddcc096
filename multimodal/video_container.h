/// What kind of video file bytes are, by their first ones, and whether the file is all there.
#ifndef VLR_MULTIMODAL_VIDEO_CONTAINER_H_
#define VLR_MULTIMODAL_VIDEO_CONTAINER_H_

#include <cstdint>
#include <span>

#include "vlr/status.h"

namespace vlr::media {

/// The kinds of files that a video is looked for in, and no others. FFmpeg's own probing is not
/// asked: it would let a file pick any of hundreds of demuxers, playlists among them.
struct Container {
  const char* name;     ///< in messages
  const char* demuxer;  ///< FFmpeg's short name
};

/// Null: none of them.
const Container* find_container(std::span<const uint8_t> bytes);

/// MP4, Matroska, AVI, FLV and Ogg say how long they or their parts are. kDataLoss: longer than
/// the file, which was cut off. The other kinds do not say, and always pass.
Status check_length(const Container& container, std::span<const uint8_t> bytes);

/// MP4 says how many samples each track has, and FFmpeg allocates for as many before it reads one.
/// kDataLoss: more than the file has bytes, or nested too deeply.
Status check_sample_counts(const Container& container, std::span<const uint8_t> bytes);

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_VIDEO_CONTAINER_H_
