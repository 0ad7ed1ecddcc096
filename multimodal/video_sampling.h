/// Which frames of a video file the model sees, at what size and with what times. Pure functions.
#ifndef VLR_MULTIMODAL_VIDEO_SAMPLING_H_
#define VLR_MULTIMODAL_VIDEO_SAMPLING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "multimodal/resize.h"
#include "vlr/status.h"

namespace vlr {

/// The reference's choice (qwen-vl-utils, smart_nframes and its decord reader): `fps` frames for
/// each second that a video of num_frames at `frame_rate` lasts, at least 4, at most max_frames,
/// an even number, evenly spread in float32 with the first and the last.
/// kInvalidArgument: fewer than two frames would come of it.
Result<std::vector<int64_t>> official_frames(int64_t num_frames, double frame_rate, double fps,
                                             int64_t max_frames);

/// All of num_frames frames if they are at most `count`; otherwise `count`, frame i being
/// round(i (num_frames - 1) / (count - 1)), ties to even, so that the first and the last are there.
/// One of many is the first.
Result<std::vector<int64_t>> uniform_frames(int64_t num_frames, int64_t count);

/// The size that num_frames frames of a video file of size `frame` are given.
Result<Size> video_size(Size frame, int64_t num_frames);

/// Times of frames -> times of pairs: their means. An odd last frame pairs with itself.
std::vector<double> pair_seconds(std::span<const double> seconds);

}  // namespace vlr

#endif  // VLR_MULTIMODAL_VIDEO_SAMPLING_H_
