#include "multimodal/media.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <random>

#include "multimodal/source.h"
#include "tests/multimodal/fixtures.h"
#include "tests/support/crc32.h"

namespace vlr {

static void PrintTo(const Size& s, std::ostream* out) { *out << s.height << "x" << s.width; }

namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kGolden = fs::path(VLR_SOURCE_DIR) / "tests/golden";
constexpr int64_t kMaxBytes = 1 << 20;

std::vector<std::byte> golden(const std::string& name) {
  Result<std::vector<std::byte>> bytes = read_file(kGolden / "media" / name, kMaxBytes);
  EXPECT_TRUE(bytes.ok()) << bytes.error().message();
  return bytes.ok() ? *bytes : std::vector<std::byte>();
}

// A picture as a binary file that every build decodes: BMP, 24 bits, top row first.
std::vector<std::byte> bmp(const Image& image) {
  std::string s("BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", 18);
  const auto put = [&](uint32_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) s += static_cast<char>(v >> (8 * i));
  };
  put(static_cast<uint32_t>(image.width), 4);
  put(static_cast<uint32_t>(-image.height), 4);
  put(1, 2), put(24, 2), put(0, 4), put(0, 4), put(0, 4), put(0, 4), put(0, 4), put(0, 4);
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t x = 0; x < image.width; ++x) {
      for (int64_t c = 2; c >= 0; --c)
        s += static_cast<char>(image.rgb[static_cast<size_t>(3 * (y * image.width + x) + c)]);
    }
    while (s.size() % 4 != 54 % 4) s += '\0';
  }
  const auto bytes = std::as_bytes(std::span(s));
  return {bytes.begin(), bytes.end()};
}

Image noise(int64_t height, int64_t width, uint32_t seed) {
  std::mt19937 random(seed);
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(3 * width * height))};
  for (uint8_t& v : image.rgb) v = static_cast<uint8_t>(random());
  return image;
}

uint8_t at(const Image& image, int64_t y, int64_t x, int64_t c) {
  return image.rgb[static_cast<size_t>(3 * (y * image.width + x) + c)];
}

// Every picture of the end-to-end tests, against patches made with Pillow and numpy.
TEST(LoadImage, PatchesOfTheReference) {
  std::ifstream list(kGolden / "images/patches.txt");
  std::string name, crc;
  int64_t grid_h = 0, grid_w = 0;
  int count = 0;
  for (; list >> name >> grid_h >> grid_w >> crc; ++count) {
    const Result<Patches> patches = load_image(golden(name));
    ASSERT_TRUE(patches.ok()) << name << ": " << patches.error().message();
    EXPECT_EQ(patches->grid_t, 1) << name;
    EXPECT_EQ(patches->grid_h, grid_h) << name;
    EXPECT_EQ(patches->grid_w, grid_w) << name;
    EXPECT_TRUE(patches->seconds.empty());
    EXPECT_EQ(fmt::format("{:08x}", test::crc32(patches->data)), crc) << name;
  }
  EXPECT_EQ(count, 26);
}

// Rows on their way and whole pictures give the same.
TEST(LoadImage, EqualsItsSteps) {
  int count = 0;
  for (const Fixture& f : fixtures()) {
    const Result<Image> image = decode_image(f.bytes());
    if (!image) {
      EXPECT_FALSE(load_image(f.bytes()).ok()) << f.name;
      continue;
    }
    const MediaOptions options = {.min_pixels = 16 * 1024};
    const Result<Size> size = smart_resize(image->height, image->width, 32, 16 * 1024, 1800 * 1024);
    const Result<Patches> expected = patchify_image(*resize_pillow_bicubic(*image, *size));
    const Result<Patches> patches = load_image(f.bytes(), options);
    ASSERT_TRUE(patches.ok()) << f.name << ": " << patches.error().message();
    EXPECT_EQ(patches->grid_w, expected->grid_w);
    EXPECT_TRUE(std::ranges::equal(patches->data, expected->data)) << f.name;
    ++count;
  }
  EXPECT_GE(count, kWithFfmpeg ? 150 : 100);
}

TEST(LoadImage, Limits) {
  const std::vector<std::byte> bytes = bmp(noise(64, 96, 1));
  EXPECT_EQ(load_image(bytes)->grid_w, 6);
  EXPECT_EQ(load_image(bytes, {.max_pixels = 64 * 64})->grid_w, 4);
  EXPECT_EQ(load_image(bytes, {.min_pixels = 100 * 1024})->grid_w, 26);
  EXPECT_THAT(load_image(bytes, {.limits = {.max_pixels = 1000}}).error().message(),
              HasSubstr("at most 1000"));
  EXPECT_THAT(load_image(bmp(noise(1, 201, 1))).error().message(),
              HasSubstr("more than 200 times"));
}

TEST(Patchify, OrderOfPatchesAndValues) {
  const Image a = noise(64, 96, 1), b = noise(64, 96, 2);
  Result<Patches> patches = make_patches(2, 64, 96);
  ASSERT_TRUE(patches.ok());
  const Image* frames[] = {&b, &a, &a, &b};
  for (int64_t i = 0; i < 4; ++i) ASSERT_TRUE(put_frame(*frames[i], i, *patches).ok());
  size_t i = 0;
  for (int64_t pair = 0; pair < 2; ++pair) {
    for (int64_t block_y = 0; block_y < 2; ++block_y) {
      for (int64_t block_x = 0; block_x < 3; ++block_x) {
        for (int64_t in_y = 0; in_y < 2; ++in_y) {
          for (int64_t in_x = 0; in_x < 2; ++in_x) {
            for (int64_t c = 0; c < 3; ++c) {
              for (int64_t t = 0; t < 2; ++t) {
                for (int64_t y = 0; y < 16; ++y) {
                  for (int64_t x = 0; x < 16; ++x, ++i) {
                    ASSERT_EQ(patches->data[i],
                              at(*frames[2 * pair + t], 32 * block_y + 16 * in_y + y,
                                 32 * block_x + 16 * in_x + x, c))
                        << "value " << i;
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(i, patches->data.size());
}

TEST(Patchify, PictureIsAVideoOfTwoEqualFrames) {
  const Image image = noise(32, 64, 3);
  Result<Patches> video = make_patches(1, 32, 64);
  ASSERT_TRUE(put_frame(image, 0, *video).ok() && put_frame(image, 1, *video).ok());
  EXPECT_THAT(patchify_image(image)->data, testing::ElementsAreArray(video->data));
}

FrameSource from(std::vector<std::vector<std::byte>> frames) {
  return [frames = std::move(frames)](int64_t i) -> Result<std::span<const std::byte>> {
    return std::span(frames[static_cast<size_t>(i)]);
  };
}

TEST(Patchify, MemoryOfTheCaller) {
  const auto mine = std::make_shared<uint8_t[]>(10'000);
  size_t asked = 0;
  const PatchMemory memory = [&](size_t bytes) -> std::shared_ptr<uint8_t[]> {
    asked = bytes;
    return bytes <= 10'000 ? mine : nullptr;
  };
  const std::vector<std::byte> small = bmp(noise(32, 32, 1)), large = bmp(noise(96, 96, 1));
  Result<Patches> patches = load_image(small, {.min_pixels = 1024, .memory = memory});
  ASSERT_TRUE(patches.ok()) << patches.error().message();
  EXPECT_EQ(asked, 6144u);
  EXPECT_EQ(patches->data.data(), mine.get());
  EXPECT_EQ(patches->data.size(), 6144u);
  EXPECT_EQ(mine.use_count(), 2);
  EXPECT_THAT(patches->data,
              testing::ElementsAreArray(load_image(small, {.min_pixels = 1024})->data));
  const Result<Patches> none = load_image(large, {.memory = memory});
  EXPECT_EQ(none.error().code(), Code::kOutOfMemory);
  EXPECT_EQ(none.error().message(), "patchify: no memory for 55296 bytes of patches");
  EXPECT_EQ(load_frames(1, from({large}), {.memory = memory}).error().code(), Code::kOutOfMemory);
}

// 96 x 96 pixels: 55,296 bytes for a pair of frames.
TEST(Patchify, MostBytes) {
  const std::vector<std::byte> bytes = bmp(noise(96, 96, 1));
  bool asked = false;
  const PatchMemory memory = [&](size_t) -> std::shared_ptr<uint8_t[]> {
    asked = true;
    return nullptr;
  };
  EXPECT_TRUE(load_image(bytes, {.max_patch_bytes = 55'296}).ok());
  const Result<Patches> image = load_image(bytes, {.max_patch_bytes = 55'295, .memory = memory});
  EXPECT_EQ(image.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(
      image.error().message(),
      "patches: 1 x 55296 bytes for pairs of frames of 96x96 pixels, at most 55295 are allowed");
  const auto frames = from({bytes, bytes, bytes});
  const Size size = frame_sizes({96, 96}, 3)->video;
  EXPECT_EQ(size, (Size{384, 384}));
  EXPECT_TRUE(load_frames(3, frames, {.max_patch_bytes = 2 * 384 * 384 * 6}).ok());
  const Result<Patches> video =
      load_frames(3, frames, {.max_patch_bytes = 2 * 384 * 384 * 6 - 1, .memory = memory});
  EXPECT_EQ(video.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(
      video.error().message(),
      "video frame 0: patches: 2 x 884736 bytes for pairs of frames of 384x384 pixels, at most "
      "1769471 are allowed");
  EXPECT_FALSE(asked);
  EXPECT_FALSE(check_patch_bytes(INT64_MAX, size, {}).ok());
}

TEST(Patchify, Refuses) {
  EXPECT_EQ(make_patches(1, 64, 48).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(make_patches(0, 64, 64).error().code(), Code::kInvalidArgument);
  Result<Patches> patches = make_patches(1, 64, 64);
  EXPECT_FALSE(put_frame(noise(64, 64, 1), 2, *patches).ok());
  EXPECT_FALSE(put_frame(noise(64, 96, 1), 0, *patches).ok());
}

TEST(ThinFrames, KeepsFirstAndLast) {
  using testing::ElementsAre;
  const auto head = [](int64_t n, size_t count) {
    std::vector<int64_t> f = thin_frames(n, 64);
    EXPECT_EQ(f.size(), 64u);
    return std::vector<int64_t>(f.begin(), f.begin() + static_cast<int64_t>(count));
  };
  const auto tail = [](int64_t n, int64_t count) {
    std::vector<int64_t> f = thin_frames(n, 64);
    return std::vector<int64_t>(f.end() - count, f.end());
  };
  EXPECT_THAT(thin_frames(3, 64), ElementsAre(0, 1, 2));
  EXPECT_EQ(thin_frames(64, 64).back(), 63);
  EXPECT_THAT(head(65, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(tail(65, 2), ElementsAre(62, 64));
  EXPECT_THAT(head(100, 10), ElementsAre(0, 1, 3, 4, 6, 7, 9, 11, 12, 14));
  EXPECT_THAT(tail(100, 4), ElementsAre(94, 95, 97, 99));
  EXPECT_THAT(head(128, 3), ElementsAre(0, 2, 4));
  EXPECT_THAT(tail(128, 3), ElementsAre(122, 124, 127));
  EXPECT_THAT(head(1000, 10), ElementsAre(0, 15, 31, 47, 63, 79, 95, 111, 126, 142));
  EXPECT_THAT(tail(1000, 4), ElementsAre(951, 967, 983, 999));
  EXPECT_THAT(thin_frames(9, 1), ElementsAre(0));
  EXPECT_THAT(thin_frames(9, 2), ElementsAre(0, 8));
  EXPECT_TRUE(thin_frames(0, 64).empty());
}

TEST(FrameSizes, BothCallersOfTheReference) {
  struct Case {
    Size frame;
    int64_t num_frames;
    Size picture64, video64, picture32, video32;
  };
  constexpr Case kCases[] = {
      {{720, 1280}, 64, {704, 1280}, {352, 640}, {704, 1280}, {352, 640}},
      {{720, 1280}, 20, {704, 1280}, {640, 1184}, {704, 1280}, {640, 1184}},
      {{1080, 1920}, 16, {1088, 1920}, {640, 1152}, {1088, 1920}, {640, 1152}},
      {{360, 640}, 30, {384, 640}, {384, 640}, {352, 640}, {352, 640}},
      {{224, 224}, 8, {256, 256}, {384, 384}, {224, 224}, {384, 384}},
      {{100, 150}, 4, {128, 128}, {384, 384}, {96, 160}, {288, 480}},
  };
  for (const Case& c : kCases) {
    const Result<FrameSizes> with64 = frame_sizes(c.frame, c.num_frames, {.frame_factor = 64});
    const Result<FrameSizes> with32 = frame_sizes(c.frame, c.num_frames, {.frame_factor = 32});
    EXPECT_EQ(with64->picture, c.picture64);
    EXPECT_EQ(with64->video, c.video64);
    EXPECT_EQ(with32->picture, c.picture32);
    EXPECT_EQ(with32->video, c.video32);
  }
  // An odd last frame counts twice when pixels are shared out.
  EXPECT_EQ(frame_sizes({720, 1280}, 63)->video, frame_sizes({720, 1280}, 64)->video);
  EXPECT_FALSE(frame_sizes({720, 1280}, 0).ok());
}

TEST(LoadFrames, GridsOfTheReference) {
  struct Case {
    std::vector<int> frames;
    int64_t grid_t;
  };
  for (const Case& c :
       {Case{{0, 1, 2, 3}, 2}, {{0, 1, 2, 3, 4}, 3}, {{0, 6}, 1}, {{2, 3, 4, 5}, 2}}) {
    std::vector<std::vector<std::byte>> files;
    for (const int i : c.frames)
      files.push_back(*read_file(kGolden / "media" / fmt::format("frame{}.png", i), kMaxBytes));
    const Result<Patches> video = load_frames(std::ssize(files), from(files));
    ASSERT_TRUE(video.ok()) << video.error().message();
    EXPECT_EQ(video->grid_t, c.grid_t);
    EXPECT_EQ(video->grid_h, 22);
    EXPECT_EQ(video->grid_w, 26);
    ASSERT_EQ(video->seconds.size(), static_cast<size_t>(c.grid_t));
    for (int64_t k = 0; k < c.grid_t; ++k)
      EXPECT_EQ(video->seconds[static_cast<size_t>(k)], static_cast<double>(k) + 0.25);
  }
}

TEST(LoadFrames, EachFrameGoesThroughBothFilters) {
  const Image a = noise(100, 150, 1), b = noise(100, 150, 2);
  const Result<FrameSizes> sizes = frame_sizes({100, 150}, 3);
  const auto resized = [&](const Image& image) {
    return resize_torchvision_bicubic(*resize_pillow_bicubic(image, sizes->picture), sizes->video)
        .value();
  };
  Result<Patches> expected = make_patches(2, sizes->video.height, sizes->video.width);
  const Image frames[] = {resized(a), resized(b), resized(a), resized(a)};  // the odd one twice
  for (int64_t i = 0; i < 4; ++i) ASSERT_TRUE(put_frame(frames[i], i, *expected).ok());
  const Result<Patches> video = load_frames(3, from({bmp(a), bmp(b), bmp(a)}));
  ASSERT_TRUE(video.ok()) << video.error().message();
  EXPECT_THAT(video->data, testing::ElementsAreArray(expected->data));
}

TEST(LoadFrames, AsksOnlyForTheFramesItUses) {
  const std::vector<std::byte> bytes = bmp(noise(32, 32, 1));
  std::vector<int64_t> asked;
  const auto source = [&](int64_t i) -> Result<std::span<const std::byte>> {
    asked.push_back(i);
    return std::span(bytes);
  };
  ASSERT_TRUE(load_frames(1000, source, {.max_frames = 5}).ok());
  EXPECT_EQ(asked, thin_frames(1000, 5));
}

TEST(LoadFrames, ErrorsNameTheFrame) {
  const std::vector<std::byte> good = bmp(noise(64, 64, 1)), other = bmp(noise(64, 128, 1));
  EXPECT_EQ(load_frames(2, from({good, other})).error().message(),
            "video frame 1: 128x64 pixels after its resize, frame 0 has 64x64");
  EXPECT_THAT(load_frames(3, from({good, good, {}})).error().message(),
              HasSubstr("video frame 2: not an image"));
  const auto missing = [](int64_t) -> Result<std::span<const std::byte>> {
    return read_file("no/such.png", 10).error();
  };
  EXPECT_EQ(load_frames(1, missing).error().message(), "video frame 0: no/such.png: no such file");
  EXPECT_EQ(load_frames(1, missing).error().code(), Code::kNotFound);
  EXPECT_EQ(load_frames(0, missing).error().message(), "video: a list of no frames");
  EXPECT_EQ(load_frames(1, missing, {.max_frames = 0}).error().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace vlr
