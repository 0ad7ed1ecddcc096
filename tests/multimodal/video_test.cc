// Video files made in the test, through VideoFile and load_video().
#include "multimodal/video.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "multimodal/source.h"
#include "multimodal/video_file.h"
#include "multimodal/video_sampling.h"
#include "tests/support/crc32.h"
#include "tests/support/make_video.h"

namespace vlr {
namespace {

using test::make_video;
using test::number_of;
using test::numbered_frame;
using test::numbered_frames;
using test::VideoRecipe;
using testing::HasSubstr;

using Bytes = std::vector<std::byte>;

Image noise(int64_t width, int64_t height, uint32_t seed) {
  std::mt19937 random(seed);
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(3 * width * height))};
  for (uint8_t& v : image.rgb) v = static_cast<uint8_t>(random());
  return image;
}

std::vector<Image> noises(int count, int64_t width, int64_t height) {
  std::vector<Image> frames;
  for (int i = 0; i < count; ++i) frames.push_back(noise(width, height, static_cast<uint32_t>(i)));
  return frames;
}

// Leaves the test where an encoder is missing, visibly.
#define MAKE_VIDEO_OR_SKIP(bytes, ...)                              \
  const Result<Bytes> bytes##_made = make_video(__VA_ARGS__);       \
  if (bytes##_made.error().code() == Code::kUnimplemented)          \
    GTEST_SKIP() << bytes##_made.error().message();                 \
  ASSERT_TRUE(bytes##_made.ok()) << bytes##_made.error().message(); \
  const Bytes& bytes = *bytes##_made

Result<VideoFile> open(const Bytes& bytes) { return VideoFile::open(bytes, {}); }

std::string message(const Bytes& bytes) { return load_video(bytes).error().message(); }

std::string name_of(const VideoRecipe& r) {
  std::string name = r.muxer + "_" + r.encoder + "_" + r.pixels;
  if (r.b_frames > 0) name += "_b" + std::to_string(r.b_frames);
  if (r.encoder_options.find("open-gop=1") != std::string::npos) name += "_open";
  if (!r.muxer_options.empty()) name += "_" + r.muxer_options;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
}

class Lossless : public testing::TestWithParam<VideoRecipe> {};

TEST_P(Lossless, FramesAreTheSourceBitForBit) {
  constexpr std::array<std::pair<int64_t, int64_t>, 3> kSizes = {{{64, 48}, {33, 47}, {1, 2}}};
  for (const auto& [width, height] : kSizes) {
    if (width == 1 && GetParam().encoder == "libx264rgb") continue;  // which wants 16 x 16
    const std::vector<Image> frames = noises(5, width, height);
    MAKE_VIDEO_OR_SKIP(bytes, GetParam(), frames);
    Result<VideoFile> file = open(bytes);
    ASSERT_TRUE(file.ok()) << file.error().message();
    ASSERT_EQ(file->num_frames(), 5);
    EXPECT_EQ(file->frame_rate(), 25);
    for (int i = 0; i < 5; ++i) {
      const Result<Image> image = file->read(i);
      ASSERT_TRUE(image.ok()) << image.error().message();
      EXPECT_EQ(image->width, width);
      EXPECT_EQ(image->height, height);
      EXPECT_EQ(image->rgb, frames[static_cast<size_t>(i)].rgb)
          << width << "x" << height << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Lossless,
    testing::Values(VideoRecipe{}, VideoRecipe{.muxer = "avi"}, VideoRecipe{.muxer = "mov"},
                    VideoRecipe{.muxer = "avi", .encoder = "rawvideo", .pixels = "bgr24"},
                    VideoRecipe{.muxer = "mov", .encoder = "rawvideo", .pixels = "rgb24"},
                    VideoRecipe{.muxer = "mov", .encoder = "png", .pixels = "rgb24"},
                    VideoRecipe{.muxer = "mp4",
                                .encoder = "libx264rgb",
                                .pixels = "bgr24",
                                .encoder_options = "qp=0"}),
    [](const auto& p) { return name_of(p.param); });

class Numbered : public testing::TestWithParam<VideoRecipe> {};

// Whatever was read before, frame i is frame i.
TEST_P(Numbered, EveryFrameInAnyOrder) {
  constexpr int kCount = 50;
  MAKE_VIDEO_OR_SKIP(bytes, GetParam(), numbered_frames(kCount));
  Result<VideoFile> file = open(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message();
  ASSERT_EQ(file->num_frames(), kCount);
  EXPECT_NEAR(file->frame_rate(), 25, 1e-9);
  const auto expect_frame = [&](int64_t i) {
    const Result<Image> image = file->read(i);
    ASSERT_TRUE(image.ok()) << i << ": " << image.error().message();
    ASSERT_EQ(number_of(*image), i);
  };
  for (int64_t i = 0; i < kCount; ++i) expect_frame(i);
  EXPECT_EQ(file->num_decoded(), kCount);
  for (const int64_t i : {0, 12, 24, 37, 49}) expect_frame(i);
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) expect_frame(static_cast<int64_t>(random() % kCount));
  for (int64_t i = kCount - 1; i >= 0; i -= 7) expect_frame(i);
}

// The same pixels by leaps as frame by frame.
TEST_P(Numbered, LeapsDoNotChangePixels) {
  constexpr int kCount = 60;
  std::vector<Image> frames = numbered_frames(kCount);
  for (size_t i = 0; i < frames.size(); ++i) {  // something to predict badly
    const Image grain = noise(64, 48, static_cast<uint32_t>(i));
    for (size_t k = 0; k < grain.rgb.size(); ++k)
      frames[i].rgb[k] = static_cast<uint8_t>((frames[i].rgb[k] * 3 + grain.rgb[k]) / 4);
  }
  MAKE_VIDEO_OR_SKIP(bytes, GetParam(), frames);
  Result<VideoFile> straight = open(bytes);
  ASSERT_TRUE(straight.ok()) << straight.error().message();
  for (int64_t i = 0; i < straight->num_frames(); ++i) {
    const Result<Image> expected = straight->read(i);
    ASSERT_TRUE(expected.ok()) << expected.error().message();
    if (i % 4 != 3) continue;
    Result<VideoFile> file = open(bytes);
    const Result<Image> image = file->read(i);
    ASSERT_TRUE(image.ok()) << image.error().message();
    ASSERT_EQ(image->rgb, expected->rgb) << i;
  }
}

const std::string kX264 = "x264-params=threads=1\\:b-pyramid=2";
const VideoRecipe kRecipes[] = {
    {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .b_frames = 2},
    {.muxer = "avi", .encoder = "mpeg4", .pixels = "yuv420p", .b_frames = 2},
    {.muxer = "avi", .encoder = "mpeg4", .pixels = "yuv420p"},
    {.muxer = "mpegts", .encoder = "mpeg2video", .pixels = "yuv420p", .b_frames = 2},
    {.muxer = "vob", .encoder = "mpeg2video", .pixels = "yuv420p", .b_frames = 2},
    {.muxer = "mpegts", .encoder = "mpeg1video", .pixels = "yuv420p", .b_frames = 2},
    {.muxer = "matroska",
     .encoder = "mpeg4",
     .pixels = "yuv420p",
     .b_frames = 2,
     .muxer_options = "live=1"},
    {.muxer = "flv", .encoder = "flv", .pixels = "yuv420p"},
    {.muxer = "asf", .encoder = "wmv2", .pixels = "yuv420p"},
    {.muxer = "ogg", .encoder = "libtheora", .pixels = "yuv420p"},
    {.muxer = "webm",
     .encoder = "libvpx",
     .pixels = "yuv420p",
     .encoder_options = "auto-alt-ref=1:lag-in-frames=12:deadline=realtime"},
    {.muxer = "webm",
     .encoder = "libvpx-vp9",
     .pixels = "yuv420p",
     .encoder_options = "auto-alt-ref=1:lag-in-frames=12:deadline=realtime:cpu-used=8"},
    {.muxer = "ivf", .encoder = "libvpx", .pixels = "yuv420p"},
    {.muxer = "mp4",
     .encoder = "libx264",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = kX264},
    {.muxer = "mp4",
     .encoder = "libx264",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = kX264,
     .muxer_options = "movflags=frag_keyframe+empty_moov"},
    {.muxer = "mp4",
     .encoder = "libx264",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = kX264 + "\\:open-gop=1"},
    {.muxer = "mpegts",
     .encoder = "libx264",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = kX264 + "\\:open-gop=1"},
    {.muxer = "matroska",
     .encoder = "libx264",
     .pixels = "yuv444p",
     .b_frames = 3,
     .encoder_options = kX264},
    {.muxer = "avi",
     .encoder = "libx264",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = kX264},
    {.muxer = "h264",
     .encoder = "libx264",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = kX264},
    {.muxer = "mp4",
     .encoder = "libx265",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options =
         "x265-params=log-level=-1\\:pools=none\\:frame-threads=1\\:keyint=12\\:open-gop=1"},
    {.muxer = "hevc",
     .encoder = "libx265",
     .pixels = "yuv420p",
     .b_frames = 3,
     .encoder_options = "x265-params=log-level=-1\\:pools=none\\:frame-threads=1\\:keyint=12"},
    {.muxer = "yuv4mpegpipe", .encoder = "wrapped_avframe", .pixels = "yuv420p"},
};
INSTANTIATE_TEST_SUITE_P(All, Numbered, testing::ValuesIn(kRecipes),
                         [](const auto& p) { return name_of(p.param); });

// Counts, rates, the official choice and pixels of the library that the reference reads videos
// with.
TEST(VideoFile, FramesOfDecord) {
  const std::filesystem::path folder = std::filesystem::path(VLR_SOURCE_DIR) / "tests/golden/video";
  std::ifstream list(folder / "expected.txt");
  int files = 0;
  for (std::string line; std::getline(list, line); ++files) {
    std::istringstream in(line);
    std::string name;
    int64_t num_frames = 0, width = 0, height = 0;
    double rate = 0;
    in >> name >> num_frames >> rate >> width >> height;
    SCOPED_TRACE(name);
    const Result<Bytes> bytes = read_file(folder / name, 1 << 20);
    ASSERT_TRUE(bytes.ok()) << bytes.error().message();
    Result<VideoFile> file = open(*bytes);
    ASSERT_TRUE(file.ok()) << file.error().message();
    EXPECT_EQ(file->num_frames(), num_frames);
    EXPECT_EQ(file->frame_rate(), rate);
    std::vector<int64_t> frames;
    int64_t frame = 0;
    for (std::string crc; in >> frame && in.ignore() && in >> crc;) {
      frames.push_back(frame);
      const Result<Image> image = file->read(frame);
      ASSERT_TRUE(image.ok()) << image.error().message();
      EXPECT_EQ(image->width, width);
      EXPECT_EQ(image->height, height);
#ifdef __x86_64__  // elsewhere swscale rounds differently
      EXPECT_EQ(fmt::format("{:08x}", test::crc32(image->rgb)), crc) << frame;
#endif
    }
    EXPECT_EQ(*official_frames(num_frames, rate, 1, 64), frames);
  }
  EXPECT_EQ(files, 13);
}

TEST(VideoFile, FewFramesAreDecodedWhereKeyFramesAreClose) {
  constexpr int kCount = 250;
  for (const char* options : {"x264-params=threads=1", "x264-params=threads=1\\:open-gop=1"}) {
    MAKE_VIDEO_OR_SKIP(bytes,
                       {.muxer = "mp4",
                        .encoder = "libx264",
                        .pixels = "yuv420p",
                        .gop = 5,
                        .b_frames = 2,
                        .encoder_options = options},
                       numbered_frames(kCount));
    VideoStats stats;
    const Result<Patches> patches =
        load_video(bytes, {.sampling = VideoSampling::kUniformEnds, .num_frames = 4}, {}, &stats);
    ASSERT_TRUE(patches.ok()) << patches.error().message();
    EXPECT_EQ(stats.num_frames, kCount);
    EXPECT_EQ(stats.num_taken, 4);
    // At most a group of pictures, its successor's key frame and what the decoder had under way.
    EXPECT_LE(stats.num_decoded, 4 * 8) << options;
    EXPECT_GE(stats.num_decoded, 4);
  }
}

TEST(VideoFile, HiddenPicturesAreNoFrames) {
  const Result<Bytes> bytes = read_file(
      std::filesystem::path(VLR_SOURCE_DIR) / "tests/golden/video/vp8_hidden.webm", 1 << 20);
  ASSERT_TRUE(bytes.ok()) << bytes.error().message();
  Result<VideoFile> file = open(*bytes);
  ASSERT_TRUE(file.ok()) << file.error().message();
  ASSERT_EQ(file->num_frames(), 75);
  for (int64_t i = 0; i < 75; ++i) {
    const Result<Image> image = file->read(i);
    ASSERT_TRUE(image.ok()) << image.error().message();
    EXPECT_NEAR(file->seconds(i), static_cast<double>(i) / 25, 0.001);
  }
  EXPECT_EQ(file->num_decoded(), 75);
}

TEST(VideoFile, ThreadsOfTheDecoderDoNotChangePixels) {
  for (const char* encoder : {"mpeg4", "libx264"}) {
    MAKE_VIDEO_OR_SKIP(bytes,
                       {.muxer = "mp4", .encoder = encoder, .pixels = "yuv420p", .b_frames = 2},
                       numbered_frames(40));
    Result<VideoFile> one = open(bytes), four = VideoFile::open(bytes, {.threads = 4});
    ASSERT_TRUE(four.ok()) << four.error().message();
    for (const int64_t i : {0, 5, 30, 39, 3}) {
      const Result<Image> image = four->read(i);
      ASSERT_TRUE(image.ok()) << image.error().message();
      EXPECT_EQ(image->rgb, one->read(i)->rgb) << encoder << " " << i;
    }
  }
}

TEST(VideoFile, VariableFrameRate) {
  const std::vector<int64_t> times = {0, 1, 2, 10, 11, 40, 41, 100};
  for (const char* muxer : {"matroska", "mp4"}) {
    MAKE_VIDEO_OR_SKIP(
        bytes,
        {.muxer = muxer, .encoder = "mpeg4", .pixels = "yuv420p", .b_frames = 2, .pts = times},
        numbered_frames(8));
    Result<VideoFile> file = open(bytes);
    ASSERT_TRUE(file.ok()) << file.error().message();
    ASSERT_EQ(file->num_frames(), 8);
    for (int i = 0; i < 8; ++i) {
      EXPECT_NEAR(file->seconds(i), static_cast<double>(times[static_cast<size_t>(i)]) / 25, 0.0011)
          << muxer;
      EXPECT_EQ(number_of(*file->read(i)), i);
    }
    const Result<Patches> all =
        load_video(bytes, {.sampling = VideoSampling::kUniformEnds, .num_frames = 8});
    ASSERT_TRUE(all.ok()) << all.error().message();
    EXPECT_THAT(all->seconds,
                testing::Pointwise(testing::DoubleNear(0.0011), {0.02, 0.24, 1.02, 2.82}));
    // An odd number: the last frame and its time count twice.
    const Result<Patches> odd =
        load_video(bytes, {.sampling = VideoSampling::kUniformEnds, .num_frames = 3});
    EXPECT_THAT(odd->seconds,
                testing::Pointwise(testing::DoubleNear(0.0011), {0.22, 4.0}));  // frames 0, 4, 7, 7
    // The reference knows the average rate alone.
    const Result<Patches> official = load_video(bytes, {});
    ASSERT_TRUE(official.ok()) << official.error().message();
    EXPECT_DOUBLE_EQ(official->seconds[0], 1 / file->frame_rate());  // frames 0, 2
  }
}

TEST(VideoFile, Rotation) {
  std::vector<Image> frames = noises(2, 6, 4);
  const auto at = [](const Image& image, int64_t x, int64_t y) {
    const uint8_t* p = &image.rgb[static_cast<size_t>(3 * (y * image.width + x))];
    return std::array{p[0], p[1], p[2]};
  };
  const Image& source = frames[1];
  for (const int degrees : {0, 90, 180, 270, 45}) {
    SCOPED_TRACE(degrees);
    MAKE_VIDEO_OR_SKIP(
        bytes, {.muxer = "mov", .encoder = "png", .pixels = "rgb24", .rotation = degrees}, frames);
    Result<VideoFile> file = open(bytes);
    ASSERT_TRUE(file.ok()) << file.error().message();
    const Image image = file->read(1).value();
    const bool swapped = degrees == 90 || degrees == 270;
    ASSERT_EQ(image.width, swapped ? 4 : 6);
    ASSERT_EQ(image.height, swapped ? 6 : 4);
    for (int64_t y = 0; y < 4; ++y) {
      for (int64_t x = 0; x < 6; ++x) {
        const auto expected = at(source, x, y);
        if (degrees == 90)
          ASSERT_EQ(at(image, 3 - y, x), expected);  // the top row is the right column
        else if (degrees == 180)
          ASSERT_EQ(at(image, 5 - x, 3 - y), expected);
        else if (degrees == 270)
          ASSERT_EQ(at(image, y, 5 - x), expected);
        else
          ASSERT_EQ(at(image, x, y), expected);
      }
    }
  }
}

TEST(VideoFile, FramesOfOtherSizesAreScaledToTheFirst) {
  std::vector<Image> frames = {numbered_frame(3), numbered_frame(5, 128, 96), numbered_frame(9)};
  MAKE_VIDEO_OR_SKIP(bytes, {.muxer = "mov", .encoder = "png", .pixels = "rgb24"}, frames);
  Result<VideoFile> file = open(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message();
  for (int i = 0; i < 3; ++i) {
    const Result<Image> image = file->read(i);
    ASSERT_TRUE(image.ok()) << image.error().message();
    EXPECT_EQ(image->width, 64);
    EXPECT_EQ(image->height, 48);
    if (i != 1) {
      EXPECT_EQ(image->rgb, frames[static_cast<size_t>(i)].rgb);
    }
  }
  const VideoOptions all = {.sampling = VideoSampling::kUniformEnds};
  EXPECT_TRUE(load_video(bytes, all).ok());
  EXPECT_EQ(load_video(bytes, all, {.limits = {.max_pixels = 64 * 48}}).error().code(),
            Code::kDataLoss);
}

TEST(VideoFile, FramesBeforeTheEditAreNotThere) {
  std::vector<int64_t> pts;
  for (int i = 0; i < 20; ++i) pts.push_back(i - 7);
  MAKE_VIDEO_OR_SKIP(bytes, {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .pts = pts},
                     numbered_frames(20));
  Result<VideoFile> file = open(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message();
  ASSERT_EQ(file->num_frames(), 13);
  EXPECT_EQ(file->seconds(0), 0);
  for (int i = 0; i < 13; ++i) EXPECT_EQ(number_of(*file->read(i)), i + 7);
}

// A broadcast caught in the middle: it starts with the first key frame, and frames that refer to
// what was before it are not there.
TEST(VideoFile, BeginsWithTheFirstKeyFrame) {
  const VideoRecipe kStreams[] = {
      {.muxer = "mpegts", .encoder = "mpeg2video", .pixels = "yuv420p", .b_frames = 2},
      {.muxer = "mpegts",
       .encoder = "libx264",
       .pixels = "yuv420p",
       .b_frames = 3,
       .encoder_options = kX264 + "\\:open-gop=1"}};
  for (const VideoRecipe& recipe : kStreams) {
    MAKE_VIDEO_OR_SKIP(bytes, recipe, numbered_frames(50));
    int missing = 0;
    for (size_t cut = 0; cut < bytes.size() / 188 / 2; cut += 3) {
      const Bytes rest(bytes.begin() + static_cast<int64_t>(188 * cut), bytes.end());
      Result<VideoFile> file = open(rest);
      if (!file.ok()) {  // cut within a frame's packets
        EXPECT_EQ(file.error().code(), Code::kDataLoss) << file.error().message();
        continue;
      }
      const int first = number_of(*file->read(0));
      missing = std::max(missing, first);
      ASSERT_EQ(first + file->num_frames(), 50) << recipe.encoder << " from packet " << cut;
      for (int64_t i = 0; i < file->num_frames(); ++i)
        ASSERT_EQ(number_of(*file->read(i)), first + i);
    }
    EXPECT_GE(missing, 12) << recipe.encoder;
  }
}

// Bits of an H.264 stream: u(n), ue(v) and se(0) of ITU-T H.264, 7.2 and 9.1.
class BitWriter {
 public:
  void u(int count, uint32_t value) {
    while (count-- > 0) bits_.push_back(value >> count & 1);
  }
  void ue(uint32_t value) {
    int length = 0;
    while ((value + 1) >> (length + 1)) ++length;
    u(length, 0);
    u(length + 1, value + 1);
  }
  void align() {
    while (bits_.size() % 8 != 0) bits_.push_back(false);
  }
  /// A NAL unit with its start code: 00 00 0x is written 00 00 03 0x.
  void append_to(Bytes& stream, uint8_t header) {
    u(1, 1);
    align();
    for (const int b : {0, 0, 0, 1, int{header}}) stream.push_back(static_cast<std::byte>(b));
    int zeros = 0;
    for (size_t i = 0; i < bits_.size(); i += 8) {
      int byte = 0;
      for (size_t k = 0; k < 8; ++k) byte = byte << 1 | bits_[i + k];
      if (zeros == 2 && byte <= 3) stream.push_back(std::byte{3}), zeros = 0;
      zeros = byte == 0 ? zeros + 1 : 0;
      stream.push_back(static_cast<std::byte>(byte));
    }
  }

 private:
  std::vector<bool> bits_;
};

// Frames of 16 x 32 pixels whose fields are pictures of their own (PAFF), one raw macroblock each.
// Frame i is grey 16 + 20 i. No encoder at hand writes such streams.
Bytes stream_of_fields(int num_frames) {
  Bytes stream;
  BitWriter sps;
  sps.u(8, 77), sps.u(8, 0), sps.u(8, 10);  // main profile, level 1
  sps.ue(0), sps.ue(0), sps.ue(2), sps.ue(1),
      sps.u(1, 0);       // frame_num of 4 bits, output as decoded
  sps.ue(0), sps.ue(0);  // one macroblock by one pair
  sps.u(1, 0), sps.u(1, 0), sps.u(1, 1), sps.u(1, 0), sps.u(1, 0);  // fields allowed
  sps.append_to(stream, 0x67);
  BitWriter pps;
  pps.ue(0), pps.ue(0), pps.u(1, 0), pps.u(1, 0), pps.ue(0), pps.ue(0), pps.ue(0);
  pps.u(1, 0), pps.u(2, 0), pps.ue(0), pps.ue(0), pps.ue(0);
  pps.u(1, 1), pps.u(1, 0), pps.u(1, 0);
  pps.append_to(stream, 0x68);
  constexpr int kGroup = 4;
  for (int i = 0; i < 2 * num_frames; ++i) {
    const int frame = i / 2, bottom = i % 2;
    const bool idr = frame % kGroup == 0 && !bottom;
    BitWriter slice;
    slice.ue(0), slice.ue(7), slice.ue(0);  // all of the field, I
    slice.u(4, static_cast<uint32_t>(frame % kGroup));
    slice.u(1, 1), slice.u(1, static_cast<uint32_t>(bottom));
    if (idr)
      slice.ue(static_cast<uint32_t>(frame / kGroup % 2)), slice.u(2, 0);
    else
      slice.u(1, 0);
    slice.ue(0), slice.ue(1);  // no change of qp, no loop filter
    slice.ue(25);              // I_PCM
    slice.align();
    for (int k = 0; k < 256 + 128; ++k)
      slice.u(8, k < 256 ? static_cast<uint32_t>(16 + 20 * frame) : 128);
    slice.append_to(stream, idr ? 0x65 : 0x61);
  }
  return stream;
}

TEST(VideoFile, TwoFieldsAreOneFrame) {
  Result<VideoFile> file = open(stream_of_fields(10));
  ASSERT_TRUE(file.ok()) << file.error().message();
  ASSERT_EQ(file->num_frames(), 10);
  for (const int i : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 9}) {
    const Result<Image> image = file->read(i);
    ASSERT_TRUE(image.ok()) << i << ": " << image.error().message();
    EXPECT_EQ(image->width, 16);
    EXPECT_EQ(image->height, 32);
    EXPECT_THAT(image->rgb, testing::Each(testing::AllOf(testing::Ge(i * 20 * 255 / 219 - 1),
                                                         testing::Le(i * 20 * 255 / 219 + 1))));
  }
}

TEST(VideoFile, CoverIsNoVideo) {
  MAKE_VIDEO_OR_SKIP(bytes,
                     {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .with_cover = true},
                     numbered_frames(6));
  Result<VideoFile> file = open(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message();
  EXPECT_EQ(file->num_frames(), 6);
}

TEST(LoadVideo, SaysWhatIsThereInstead) {
  const std::vector<Image> frames = numbered_frames(6);
  MAKE_VIDEO_OR_SKIP(audio, {.muxer = "mp4", .with_video = false, .with_audio = true}, frames);
  EXPECT_EQ(message(audio), "mp4: no video stream in it (1 audio stream: aac)");
  EXPECT_EQ(load_video(audio).error().code(), Code::kInvalidArgument);
  MAKE_VIDEO_OR_SKIP(
      cover, {.muxer = "mp4", .with_video = false, .with_audio = true, .with_cover = true}, frames);
  EXPECT_EQ(message(cover), "mp4: no video stream in it (1 audio stream: aac; 1 cover)");
  MAKE_VIDEO_OR_SKIP(
      encrypted,
      {.muxer = "mp4",
       .encoder = "mpeg4",
       .pixels = "yuv420p",
       .muxer_options =
           "encryption_scheme=cenc-aes-ctr:encryption_key=00112233445566778899aabbccddeeff:"
           "encryption_kid=00112233445566778899aabbccddeeff"},
      frames);
  EXPECT_EQ(message(encrypted), "mp4: encrypted");
  EXPECT_EQ(load_video(encrypted).error().code(), Code::kUnimplemented);
  EXPECT_EQ(message({}), "not a video: no bytes at all");
  Bytes text(40, std::byte{'a'});
  EXPECT_EQ(message(text), "not a video: text");
  EXPECT_EQ(load_video(text).error().code(), Code::kInvalidArgument);
  MAKE_VIDEO_OR_SKIP(one, {}, numbered_frames(1));
  EXPECT_EQ(message(one),
            "video: 1 frame(s) at 25 a second, the official sampling needs at least 2");
}

// FFmpeg knows no limit of more than 2^31 - 1 pixels where it decodes frames to complete a header.
TEST(VideoFile, AnyNumberOfPixels) {
  MAKE_VIDEO_OR_SKIP(bytes, {.muxer = "mpegts", .encoder = "libx264", .pixels = "yuv420p"},
                     numbered_frames(12));
  for (const int64_t most : {int64_t{INT_MAX}, int64_t{INT_MAX} + 1, INT64_MAX}) {
    Result<VideoFile> file = VideoFile::open(bytes, {.frame = {.max_pixels = most}});
    ASSERT_TRUE(file.ok()) << file.error().message();
    EXPECT_EQ(file->num_frames(), 12) << most;
    EXPECT_EQ(file->frame_rate(), 25) << most;
    EXPECT_EQ(number_of(*file->read(7)), 7) << most;
  }
}

TEST(LoadVideo, Limits) {
  MAKE_VIDEO_OR_SKIP(bytes, {}, numbered_frames(9));
  EXPECT_EQ(load_video(bytes, {}, {.limits = {.max_pixels = 64 * 48 - 1}}).error().message(),
            "matroska: 64x48 pixels, at most 3071 are allowed");
  EXPECT_EQ(load_video(bytes, {.max_packets = 8}).error().message(),
            "matroska: more than the allowed 8 packets");
  EXPECT_TRUE(load_video(bytes, {.max_packets = 9}).ok());
  MAKE_VIDEO_OR_SKIP(narrow, {}, noises(4, 402, 2));
  EXPECT_EQ(message(narrow), "matroska: 402x2 pixels, one side is more than 200 times the other");
  EXPECT_EQ(load_video(narrow).error().code(), Code::kInvalidArgument);
}

// 512 x 256 pixels need no resize, so that the patches are the source's.
TEST(LoadVideo, PatchesOfTheSource) {
  const std::vector<Image> frames = noises(7, 512, 256);
  MAKE_VIDEO_OR_SKIP(bytes, {.rate_num = 7}, frames);
  const auto expect_frames = [&](const Result<Patches>& patches,
                                 const std::vector<size_t>& picked) {
    ASSERT_TRUE(patches.ok()) << patches.error().message();
    Result<Patches> expected = make_patches(static_cast<int64_t>(picked.size() + 1) / 2, 256, 512);
    for (size_t i = 0; i < picked.size(); ++i)
      ASSERT_TRUE(put_frame(frames[picked[i]], static_cast<int64_t>(i), *expected).ok());
    if (picked.size() % 2 == 1) {
      ASSERT_TRUE(
          put_frame(frames[picked.back()], static_cast<int64_t>(picked.size()), *expected).ok());
    }
    ASSERT_EQ(patches->data.size(), expected->data.size());
    EXPECT_TRUE(std::equal(patches->data.begin(), patches->data.end(), expected->data.begin()));
    EXPECT_EQ(patches->grid_t, expected->grid_t);
    EXPECT_EQ(patches->grid_h, 16);
    EXPECT_EQ(patches->grid_w, 32);
    EXPECT_EQ(patches->seconds.size(), static_cast<size_t>(patches->grid_t));
  };
  const auto uniform = [](int64_t k) {
    return VideoOptions{.sampling = VideoSampling::kUniformEnds, .num_frames = k};
  };
  expect_frames(load_video(bytes), {0, 2, 4, 6});
  expect_frames(load_video(bytes, {.fps = 6}), {0, 1, 2, 4, 5, 6});
  expect_frames(load_video(bytes, {.fps = 6, .max_frames = 3}), {0, 6});
  expect_frames(load_video(bytes, uniform(8)), {0, 1, 2, 3, 4, 5, 6});
  expect_frames(load_video(bytes, uniform(3)), {0, 3, 6});
  expect_frames(load_video(bytes, uniform(1)), {0});
  EXPECT_THAT(load_video(bytes)->seconds,
              testing::ElementsAre((0 / 7.0 + 2 / 7.0) / 2, (4 / 7.0 + 6 / 7.0) / 2));
  MAKE_VIDEO_OR_SKIP(single, {}, {frames[0]});
  expect_frames(load_video(single, uniform(8)), {0});
  EXPECT_THAT(load_video(single, uniform(8))->seconds, testing::ElementsAre(0));
}

// Four frames of 512 x 256 pixels: two pairs of 786,432 bytes.
TEST(LoadVideo, MemoryOfTheCaller) {
  MAKE_VIDEO_OR_SKIP(bytes, {}, noises(7, 512, 256));
  constexpr size_t kBytes = 2 * 786'432;
  const auto mine = std::make_shared<uint8_t[]>(kBytes);
  std::vector<size_t> asked;
  const PatchMemory memory = [&](size_t count) {
    asked.push_back(count);
    return mine;
  };
  const MediaOptions media = {.max_patch_bytes = kBytes, .memory = memory};
  const Result<Patches> patches = load_video(bytes, {}, media);
  ASSERT_TRUE(patches.ok()) << patches.error().message();
  EXPECT_THAT(asked, testing::ElementsAre(kBytes));
  EXPECT_EQ(patches->data.data(), mine.get());
  EXPECT_TRUE(std::ranges::equal(patches->data, load_video(bytes)->data));
  EXPECT_EQ(load_video(bytes, {}, {.memory = [](size_t) { return nullptr; }}).error().code(),
            Code::kOutOfMemory);
  // More frames than fit are refused before any memory is asked for.
  const Result<Patches> more = load_video(bytes, {.fps = 1e300, .max_frames = INT64_MAX}, media);
  EXPECT_EQ(more.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(
      more.error().message(),
      "video: patches: 3 x 786432 bytes for pairs of frames of 512x256 pixels, at most 1572864 "
      "are allowed");
  EXPECT_EQ(asked.size(), 1u);
}

TEST(LoadVideo, ResizesAsTheReference) {
  const std::vector<Image> frames = noises(4, 320, 240);
  MAKE_VIDEO_OR_SKIP(bytes, {}, frames);
  Result<Patches> expected = make_patches(2, 320, 448);
  for (int64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(
        put_frame(resize_torchvision_bicubic(frames[static_cast<size_t>(i)], {320, 448}).value(), i,
                  *expected)
            .ok());
  }
  const Result<Patches> patches = load_video(bytes);
  ASSERT_TRUE(patches.ok()) << patches.error().message();
  ASSERT_EQ(patches->data.size(), expected->data.size());
  EXPECT_TRUE(std::equal(patches->data.begin(), patches->data.end(), expected->data.begin()));
}

// What a prefix of a file may give: an error that says so, or, where the format does not say how
// long it is, the frames that are there.
TEST(Damage, TruncatedFiles) {
  const VideoRecipe kFiles[] = {
      {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .b_frames = 2},
      {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .muxer_options = "moov_size=4000"},
      {.muxer = "mp4",
       .encoder = "mpeg4",
       .pixels = "yuv420p",
       .muxer_options = "movflags=frag_keyframe+empty_moov"},
      {.muxer = "mov", .encoder = "png", .pixels = "rgb24"},
      {},
      {.muxer = "avi", .encoder = "mpeg4", .pixels = "yuv420p"},
      {.muxer = "flv", .encoder = "flv", .pixels = "yuv420p"},
      {.muxer = "ogg", .encoder = "libtheora", .pixels = "yuv420p"},
  };
  for (const VideoRecipe& recipe : kFiles) {
    MAKE_VIDEO_OR_SKIP(bytes, recipe, numbered_frames(24));
    ASSERT_TRUE(load_video(bytes).ok()) << name_of(recipe) << message(bytes);
    for (size_t part = 1; part < 16; ++part) {
      const Bytes prefix(bytes.begin(),
                         bytes.begin() + static_cast<int64_t>(bytes.size() * part / 16));
      const Result<Patches> patches = load_video(prefix);
      if (recipe.muxer == "ogg" && patches.ok()) continue;  // cut between pages
      ASSERT_FALSE(patches.ok()) << name_of(recipe) << " " << part;
      EXPECT_EQ(patches.error().code(), Code::kDataLoss) << patches.error().message();
      EXPECT_THAT(patches.error().message(),
                  testing::AnyOf(HasSubstr("truncated"), HasSubstr("header")))
          << name_of(recipe) << " " << part;
    }
  }
}

TEST(Damage, CountsTheFramesThatAreThere) {
  MAKE_VIDEO_OR_SKIP(
      bytes,
      {.muxer = "mp4", .encoder = "png", .pixels = "rgb24", .muxer_options = "moov_size=4000"},
      noises(20, 64, 48));
  const Bytes prefix(bytes.begin(), bytes.end() - 9216 * 5);
  EXPECT_THAT(message(prefix),
              testing::MatchesRegex("mp4: truncated: 1[45] of 20 frames are there"));
}

// A live stream says neither how long it is nor how many frames it has.
TEST(Damage, LiveStreamsHaveTheFramesThatAreThere) {
  for (const char* muxer : {"matroska", "mpegts"}) {
    const bool ts = muxer == std::string("mpegts");
    MAKE_VIDEO_OR_SKIP(bytes,
                       {.muxer = muxer,
                        .encoder = "mpeg2video",
                        .pixels = "yuv420p",
                        .gop = 4,
                        .muxer_options = ts ? "" : "live=1"},
                       numbered_frames(24));
    ASSERT_EQ(open(bytes)->num_frames(), 24);
    for (size_t part = 4; part < 16; ++part) {
      const Bytes prefix(bytes.begin(),
                         bytes.begin() + static_cast<int64_t>(bytes.size() * part / 16));
      Result<VideoFile> file = open(prefix);
      if (!file.ok()) continue;
      EXPECT_LT(file->num_frames(), 24);
      for (int64_t i = 0; i + 1 < file->num_frames(); ++i) ASSERT_EQ(number_of(*file->read(i)), i);
    }
  }
}

// Bytes overwritten at random: an error with words, or frames of the right size.
TEST(Damage, FlippedBytesNeverCrash) {
  int errors = 0, files = 0;
  for (const VideoRecipe& recipe : kRecipes) {
    const Result<Bytes> made = make_video(recipe, numbered_frames(10));
    if (made.error().code() == Code::kUnimplemented) continue;
    ASSERT_TRUE(made.ok()) << made.error().message();
    std::mt19937 random(7);
    for (int round = 0; round < 6; ++round, ++files) {
      Bytes bytes = *made;
      // The first rounds aim at headers, where sizes are.
      const size_t range = round < 4 ? std::min<size_t>(bytes.size(), 1500) : bytes.size();
      for (int i = 0; i < 1 + round; ++i)
        bytes[random() % range] =
            round % 2 == 0 ? std::byte{0xff} : static_cast<std::byte>(random());
      const Result<Patches> patches = load_video(bytes, {}, {.limits = {.max_pixels = 1 << 20}});
      if (!patches.ok()) {
        ++errors;
        EXPECT_FALSE(patches.error().message().empty());
      } else {
        EXPECT_EQ(static_cast<int64_t>(patches->data.size()),
                  patches->grid_t * patches->grid_h * patches->grid_w * kPatchValues);
      }
    }
  }
  EXPECT_GE(files, 25);
  EXPECT_GT(errors, files / 10);
}

TEST(Damage, DamagedFramesAreNotConcealed) {
  const VideoRecipe kFiles[] = {
      {.muxer = "mov", .encoder = "png", .pixels = "rgb24"},
      {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p", .b_frames = 2},
      {.muxer = "mp4",
       .encoder = "libx264",
       .pixels = "yuv420p",
       .b_frames = 2,
       .encoder_options = kX264},
  };
  for (const VideoRecipe& recipe : kFiles) {
    MAKE_VIDEO_OR_SKIP(bytes, recipe, noises(12, 64, 48));
    Bytes damaged = bytes;
    for (size_t i = damaged.size() / 2; i < damaged.size() / 2 + 200; ++i)
      damaged[i] ^= std::byte{0x5a};
    const Result<Patches> patches =
        load_video(damaged, {.sampling = VideoSampling::kUniformEnds, .num_frames = 12});
    ASSERT_FALSE(patches.ok()) << name_of(recipe);
    EXPECT_EQ(patches.error().code(), Code::kDataLoss) << patches.error().message();
  }
}

void put32(Bytes& bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (24 - 8 * i));
}

size_t find(const Bytes& bytes, std::string_view what) {
  const auto all = std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return all.find(what);
}

// Headers that promise more than any file could hold.
TEST(Damage, HostileSizes) {
  MAKE_VIDEO_OR_SKIP(good, {.muxer = "mp4", .encoder = "mpeg4", .pixels = "yuv420p"},
                     numbered_frames(6));
  Bytes samples = good;
  put32(samples, find(samples, "stsz") + 12, 0x7fffffff);
  EXPECT_THAT(message(samples), HasSubstr("a track of 2147483647 samples in a file of"));
  for (const char* table :
       {"stsz", "stco", "stsc", "stts", "stss", "mdat", "moov", "trak", "ftyp", "esds"}) {
    for (const uint32_t size : {0u, 1u, 7u, 0x7fffffffu, 0xffffffffu}) {
      for (const size_t offset : {size_t{0}, size_t{8}, size_t{12}}) {
        Bytes bytes = good;
        put32(bytes, find(bytes, table) - 4 + offset, size);
        const Result<Patches> patches = load_video(bytes);
        if (!patches.ok()) {
          EXPECT_FALSE(patches.error().message().empty());
        }
      }
    }
  }
  MAKE_VIDEO_OR_SKIP(wide, {.muxer = "avi", .encoder = "png", .pixels = "rgb24"},
                     numbered_frames(3));
  Bytes png = wide;
  put32(png, find(png, "IHDR") + 4, 100000);
  put32(png, find(png, "IHDR") + 8, 100000);
  EXPECT_FALSE(load_video(png).ok());
}

}  // namespace
}  // namespace vlr
