/// Video files for tests, made in the test with FFmpeg's encoders and muxers.
#ifndef VLR_TESTS_SUPPORT_MAKE_VIDEO_H_
#define VLR_TESTS_SUPPORT_MAKE_VIDEO_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr::test {

struct VideoRecipe {
  std::string muxer = "matroska";
  std::string encoder = "ffv1";
  std::string pixels = "bgr0";  ///< FFmpeg's name of the pixel format
  int rate_num = 25, rate_den = 1;
  int gop = 12, b_frames = 0;
  std::string encoder_options = "", muxer_options = "";  ///< as a=b:c=d
  std::vector<int64_t> pts = {};  ///< in frames of the rate; empty: 0, 1, 2, ...
  int rotation = 0;               ///< degrees clockwise, as a display matrix
  bool with_video = true, with_audio = false, with_cover = false;
};

/// `frames` may change their size where every packet of the encoder stands alone (png, mjpeg).
/// kUnimplemented: this FFmpeg lacks the encoder or muxer.
Result<std::vector<std::byte>> make_video(const VideoRecipe& recipe,
                                          const std::vector<Image>& frames);

/// A picture that shows `number` as black and white blocks of 16 x 16 pixels, through any codec.
/// 48 x 64 pixels at least.
Image numbered_frame(int number, int64_t width = 64, int64_t height = 48);
/// -1 for a picture that shows none.
int number_of(const Image& image);
std::vector<Image> numbered_frames(int count, int64_t width = 64, int64_t height = 48);

}  // namespace vlr::test

#endif  // VLR_TESTS_SUPPORT_MAKE_VIDEO_H_
