#include "multimodal/video_sampling.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "multimodal/video.h"
#include "multimodal/video_container.h"

namespace vlr {

static void PrintTo(const Size& s, std::ostream* out) { *out << s.height << "x" << s.width; }

namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Row {
  int64_t num_frames;
  double rate;
  size_t count;
  std::vector<int64_t> first;            // frames
  std::vector<std::string> first_times;  // of pairs, as the prompt has them
};

TEST(OfficialFrames, TableOfTheReference) {
  const std::vector<Row> kRows = {
      {300,
       30,
       10,
       {0, 33, 66, 100, 133, 166, 199, 233, 266, 299},
       {"0.6", "2.8", "5.0", "7.2", "9.4"}},
      {301,
       29.97,
       10,
       {0, 33, 67, 100, 133, 167, 200, 233, 267, 300},
       {"0.6", "2.8", "5.0", "7.2", "9.5"}},
      {100, 30, 4, {0, 33, 66, 99}, {"0.6", "2.8"}},
      {91, 30, 4, {0, 30, 60, 90}, {"0.5", "2.5"}},
      {5400,
       24,
       64,
       {0, 86, 171, 257, 343, 428, 514, 600, 686, 771, 857, 943},
       {"1.8", "8.9", "16.1", "23.2", "30.4", "37.5", "44.6", "51.8"}},
      {3, 25, 2, {0, 2}, {"0.0"}},
      {2, 25, 2, {0, 1}, {"0.0"}},
  };
  for (const Row& row : kRows) {
    SCOPED_TRACE(fmt::format("{} frames at {}", row.num_frames, row.rate));
    const auto frames = official_frames(row.num_frames, row.rate, 1, 64);
    ASSERT_TRUE(frames.ok()) << frames.error().message();
    EXPECT_EQ(frames->size(), row.count);
    EXPECT_EQ(std::vector<int64_t>(frames->begin(),
                                   frames->begin() + static_cast<int64_t>(row.first.size())),
              row.first);
    EXPECT_EQ(frames->back(), row.num_frames - 1);
    std::vector<double> seconds;
    for (const int64_t f : *frames) seconds.push_back(static_cast<double>(f) / row.rate);
    const std::vector<double> pairs = pair_seconds(seconds);
    EXPECT_EQ(pairs.size(), row.count / 2);
    for (size_t i = 0; i < row.first_times.size(); ++i)
      EXPECT_EQ(fmt::format("{:.1f}", pairs[i]), row.first_times[i]);
  }
}

TEST(OfficialFrames, RateAndCapOfTheCaller) {
  EXPECT_EQ(official_frames(300, 30, 2, 64)->size(), 20u);
  EXPECT_EQ(official_frames(300, 30, 0.25, 64)->size(), 4u);  // never less
  EXPECT_EQ(official_frames(300, 30, 0.53, 64)->size(), 4u);  // 5.3: even, downwards
  EXPECT_EQ(official_frames(300, 30, 8, 64)->size(), 64u);
  EXPECT_EQ(official_frames(300, 30, 1, 7)->size(), 6u);
  EXPECT_THAT(*official_frames(300, 30, 1, 2), ElementsAre(0, 299));
  EXPECT_EQ(official_frames(5, 30, 1e300, 64)->size(), 4u);
}

// From 129,050 frames on float32 and double choose differently (numpy's float32 agrees).
TEST(OfficialFrames, Float32) {
  const auto in_double = [](int64_t num_frames) {
    std::vector<int64_t> frames;
    for (int64_t i = 0; i < 64; ++i) {
      const double at = static_cast<double>(i * (num_frames - 1)) / 63;
      frames.push_back(std::llrint(at));
    }
    return frames;
  };
  for (const int64_t count : {1001, 12346, 60000, 129049})
    EXPECT_EQ(*official_frames(count, 1, 1, 64), in_double(count)) << count;
  std::vector<int64_t> expected = in_double(129050);
  EXPECT_EQ(std::exchange(expected[34], 69646), 69645);
  EXPECT_EQ(*official_frames(129050, 1, 1, 64), expected);
}

TEST(OfficialFrames, Refuses) {
  EXPECT_THAT(official_frames(1, 25, 1, 64).error().message(),
              HasSubstr("1 frame(s) at 25 a second"));
  EXPECT_EQ(official_frames(0, 25, 1, 64).error().code(), Code::kInvalidArgument);
  EXPECT_THAT(official_frames(9, 25, 1, 1).error().message(), HasSubstr("max_frames 1"));
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(official_frames(9, 25, bad, 64).error().message(), HasSubstr("fps"));
    EXPECT_THAT(official_frames(9, bad, 1, 64).error().message(), HasSubstr("frame rate"));
  }
}

TEST(UniformFrames, BothEndsAndTiesToEven) {
  EXPECT_THAT(*uniform_frames(5, 8), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(*uniform_frames(8, 8), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(*uniform_frames(9, 1), ElementsAre(0));
  EXPECT_THAT(*uniform_frames(9, 2), ElementsAre(0, 8));
  EXPECT_THAT(*uniform_frames(6, 3), ElementsAre(0, 2, 5));           // 2.5
  EXPECT_THAT(*uniform_frames(8, 3), ElementsAre(0, 4, 7));           // 3.5
  EXPECT_THAT(*uniform_frames(15, 5), ElementsAre(0, 4, 7, 10, 14));  // 3.5, 10.5
  EXPECT_THAT(*uniform_frames(100, 8), ElementsAre(0, 14, 28, 42, 57, 71, 85, 99));
  EXPECT_FALSE(uniform_frames(0, 8).ok());
  EXPECT_FALSE(uniform_frames(8, 0).ok());
}

// Against the definition: |at * (count - 1) - i (n - 1)| is at most half of count - 1, and where it
// is half, `at` is even.
TEST(UniformFrames, NearestFrameOfEachPoint) {
  for (int64_t n = 1; n <= 60; ++n) {
    for (int64_t count = 2; count < n; ++count) {
      const std::vector<int64_t> frames = *uniform_frames(n, count);
      ASSERT_EQ(static_cast<int64_t>(frames.size()), count);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = frames[static_cast<size_t>(i)];
        const int64_t off = 2 * std::abs(at * (count - 1) - i * (n - 1));
        ASSERT_LE(off, count - 1) << n << " " << count << " " << i;
        ASSERT_TRUE(off < count - 1 || at % 2 == 0) << n << " " << count << " " << i;
      }
    }
  }
  EXPECT_THAT(*uniform_frames(int64_t{1} << 61, 3),
              ElementsAre(0, int64_t{1} << 60, (int64_t{1} << 61) - 1));  // halves: to even
}

TEST(VideoSize, TableOfTheReference) {
  EXPECT_EQ(*video_size({720, 1280}, 64), (Size{640, 1152}));
  EXPECT_EQ(*video_size({1080, 1920}, 64), (Size{640, 1152}));
  EXPECT_EQ(*video_size({360, 640}, 64), (Size{352, 640}));
  EXPECT_EQ(*video_size({240, 320}, 64), (Size{320, 448}));
  EXPECT_EQ(*video_size({480, 854}, 64), (Size{480, 864}));
  // Many frames share 117,964,800 pixels, down to 137,625 each.
  EXPECT_EQ(*video_size({720, 1280}, 300), (Size{640, 1152}));
  EXPECT_EQ(*video_size({720, 1280}, 600), *smart_resize(720, 1280, 32, 131072, 393216));
  EXPECT_EQ(*video_size({720, 1280}, 100000), *smart_resize(720, 1280, 32, 131072, 137625));
  EXPECT_EQ(video_size({1, 201}, 4).error().code(), Code::kInvalidArgument);
  EXPECT_FALSE(video_size({720, 1280}, 0).ok());
}

TEST(PairSeconds, OddLastPairsWithItself) {
  EXPECT_THAT(pair_seconds(std::vector<double>{0, 1, 3}), ElementsAre(0.5, 3));
  EXPECT_THAT(pair_seconds(std::vector<double>{}), ElementsAre());
}

TEST(LooksLikeVideo, ByFirstBytes) {
  const auto looks = [](std::string s) {
    s.resize(600);
    return looks_like_video(std::as_bytes(std::span(s)));
  };
  using std::string_literals::operator""s;
  EXPECT_TRUE(
      looks("\0\0\0\x20"s
            "ftypisom"));
  EXPECT_TRUE(
      looks("\0\0\0\x14"s
            "ftypqt  "));
  EXPECT_TRUE(looks("\0\0\0\x08wide\0\0\0\x08mdat"s));
  EXPECT_TRUE(looks("\x1a\x45\xdf\xa3"));
  EXPECT_TRUE(looks("RIFF\1\2\3\4AVI LIST"));
  EXPECT_TRUE(looks("FLV\1\5\0\0\0\x09"s));
  EXPECT_TRUE(looks("OggS"));
  EXPECT_TRUE(looks("\x30\x26\xb2\x75\x8e\x66\xcf\x11"));
  EXPECT_TRUE(looks("DKIF"));
  EXPECT_TRUE(looks("YUV4MPEG2 W4 H4"));
  EXPECT_TRUE(looks("\0\0\1\xba\x44"s));    // MPEG-PS
  EXPECT_TRUE(looks("\0\0\1\xb3\x14"s));    // MPEG-1 and -2
  EXPECT_TRUE(looks("\0\0\0\1\x67\x64"s));  // H.264
  EXPECT_TRUE(looks("\0\0\0\1\x40\1"s));    // HEVC
  std::string ts(600, '\0');
  ts[0] = ts[188] = ts[376] = ts[564] = 0x47;
  EXPECT_TRUE(looks(ts));
  ts[188] = 0;
  EXPECT_FALSE(looks(ts));

  EXPECT_FALSE(
      looks("\0\0\0\x20"s
            "ftypavif"));
  EXPECT_FALSE(
      looks("\0\0\0\x20"s
            "ftypheic"));
  EXPECT_FALSE(looks("\x89PNG\r\n\x1a\n"));
  EXPECT_FALSE(looks("\xff\xd8\xff\xe0"));
  EXPECT_FALSE(looks("GIF89a"));
  EXPECT_FALSE(looks("RIFF\1\2\3\4WEBPVP8 "));
  EXPECT_FALSE(looks("\0\0\1\0\1\0\x10\x10"s));  // an icon
  EXPECT_FALSE(looks("GGGGGGGGGGGGGGGGGGGG"));
  EXPECT_FALSE(looks_like_video({}));
}

// QuickTime without ftyp starts with the size of its first box; a text with its first word.
TEST(LooksLikeVideo, NotTexts) {
  using std::string_literals::operator""s;
  const auto looks = [](const std::string& s) {
    return looks_like_video(std::as_bytes(std::span(s)));
  };
  for (const char* type : {"moov", "mdat", "wide", "skip", "free", "pnot"}) {
    EXPECT_FALSE(looks("The "s + type + " words of a text")) << type;
    EXPECT_FALSE(looks("1.\n "s + type + " words of a text")) << type;
    EXPECT_FALSE(looks("\0\0\0\7"s + type + "1234567890")) << type;
    EXPECT_FALSE(looks("\0\0\0\1"s + type + "\0\0\0\0\0\0\0\x0f"s + "1234")) << type;
    EXPECT_TRUE(looks("\0\0\0\1"s + type + "\0\0\0\0\0\0\0\x10"s + "1234")) << type;
    EXPECT_TRUE(looks("\0\0\0\0"s + type + "1234567890")) << type;  // to the end
    EXPECT_TRUE(looks("\x54\x68\x65\xff"s + type + "1234567890")) << type;
  }
}

// A box may not reach beyond the one that it is in: what follows would be walked over once for
// each.
TEST(SampleCounts, BoxesEndWithTheirParents) {
  using std::string_literals::operator""s;
  const auto check = [](const std::string& file) {
    const std::span bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
    return media::check_sample_counts(*media::find_container(bytes), bytes);
  };
  const std::string samples =
      "\0\0\0\x14stsz"
      "\0\0\0\0\0\0\0\0\x7f\xff\xff\xff"s;
  const std::string track = "\0\0\0\x1ctrak"s + samples, endless = "\x7f\xff\xff\xfftrak"s;
  EXPECT_EQ(check("\0\0\0\x24moov"s + track).message(),
            "mp4: a track of 2147483647 samples in a file of 36 bytes");
  EXPECT_FALSE(check("\0\0\0\x24moov"s + endless + samples).ok());
  std::string file;
  for (int i = 0; i < 100'000; ++i) file += "\0\0\0\x18moov"s + endless + "\0\0\0\x18"s + "free";
  EXPECT_TRUE(check(file).ok());
  EXPECT_TRUE(check(file + "\0\0\0\x24"s + "free________" + samples).ok());
}

#ifndef VLR_WITH_FFMPEG
TEST(LoadVideo, NeedsFfmpeg) {
  EXPECT_EQ(load_video({}).error().code(), Code::kUnimplemented);
  EXPECT_THAT(load_video({}).error().message(), HasSubstr("VLR_WITH_FFMPEG"));
}
#endif

}  // namespace
}  // namespace vlr
