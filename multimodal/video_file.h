/// Single frames of a video file, by number in the order in which they are shown.
#ifndef VLR_MULTIMODAL_VIDEO_FILE_H_
#define VLR_MULTIMODAL_VIDEO_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr {

class VideoFile {
 public:
  struct Limits {
    DecodeLimits frame = {};
    int64_t max_packets = 1 << 20;
    int threads = 1;
  };

  /// Demuxes all of `bytes`, which are not needed afterwards, and decodes the first frame.
  static Result<VideoFile> open(std::span<const std::byte> bytes, const Limits& limits);

  VideoFile(VideoFile&&) noexcept;
  VideoFile& operator=(VideoFile&&) noexcept;
  ~VideoFile();

  /// At least 1.
  int64_t num_frames() const;
  /// Frames a second on average; 0 when the file gives no way to tell.
  double frame_rate() const;
  /// When a frame is shown, after the first one.
  double seconds(int64_t frame) const;
  /// In any order; ascending order decodes the least. All have the size of the first.
  Result<Image> read(int64_t frame);
  /// Pictures that came out of the decoder so far.
  int64_t num_decoded() const;

 private:
  class Impl;
  explicit VideoFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vlr

#endif  // VLR_MULTIMODAL_VIDEO_FILE_H_
