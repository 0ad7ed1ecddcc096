#include "multimodal/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/multimodal/fixtures.h"

namespace vlr {

static void PrintTo(const Fixture& f, std::ostream* out) { *out << f.name; }

namespace {

using testing::HasSubstr;

std::span<const std::byte> as_bytes(std::string_view s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

class ImageFixture : public testing::TestWithParam<Fixture> {};

TEST_P(ImageFixture, GivesPillowsPixels) {
  const Fixture& f = GetParam();
  const Result<Image> image = decode_image(f.bytes());
  if (!f.can_be_decoded()) {
    ASSERT_FALSE(image.ok());
    EXPECT_EQ(image.error().code(), Code::kUnimplemented);
    EXPECT_THAT(image.error().message(), HasSubstr(f.format()));
    return;
  }
  if (f.width == 0) {
    ASSERT_FALSE(image.ok()) << image->width << "x" << image->height << " pixels";
    EXPECT_THAT(image.error().message(), testing::StartsWith(f.format()));
    return;
  }
  ASSERT_TRUE(image.ok()) << image.error().message();
  ASSERT_EQ(image->width, f.width);
  ASSERT_EQ(image->height, f.height);
  ASSERT_EQ(image->rgb.size(), f.rgb.size());
  for (size_t i = 0; i < f.rgb.size(); ++i) {
    ASSERT_LE(std::abs(image->rgb[i] - f.rgb[i]), f.tolerance)
        << "x " << i / 3 % static_cast<size_t>(f.width) << ", y "
        << i / 3 / static_cast<size_t>(f.width) << ", colour " << i % 3 << ": got "
        << +image->rgb[i] << ", expected " << +f.rgb[i];
  }
}

INSTANTIATE_TEST_SUITE_P(All, ImageFixture, testing::ValuesIn(fixtures()),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(Image, EveryFormatHasFixtures) {
  for (const char* format : {"jpeg_", "webp_", "png_", "gif_", "bmp_", "tiff_", "avif_",
                             "jpeg2000_", "pnm_", "heic_", "tga_", "psd_"}) {
    EXPECT_TRUE(std::any_of(fixtures().begin(), fixtures().end(), [&](const Fixture& f) {
      return f.name.starts_with(format) && f.width > 0;
    })) << format;
  }
}

TEST(Image, MessagesSayWhatWasFound) {
  EXPECT_EQ(decode_image(as_bytes("PK\x03\x04 rest")).error().message(),
            "not an image: a ZIP archive, which office documents are, too");
  EXPECT_EQ(decode_image({}).error().message(), "not an image: no bytes at all");
  EXPECT_EQ(decode_image({}).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(decode_image(fixture("jpeg_header_only").bytes()).error().message(),
            "jpeg: truncated: 100 bytes end in the header");
  EXPECT_EQ(decode_image(fixture("png_wrong_header_crc").bytes()).error().code(), Code::kDataLoss);
  EXPECT_EQ(decode_image(fixture("gif_too_few_pixels").bytes()).error().message(),
            "gif: truncated: 132 of 143 pixels before byte 112");
  EXPECT_EQ(decode_image(fixture("bmp_16_masks_444").bytes()).error().code(), Code::kUnimplemented);
}

TEST(LooksLikeImage, EveryFixture) {
  for (const Fixture& f : fixtures()) {
    if (f.width == 0) continue;
    EXPECT_TRUE(looks_like_image(f.bytes())) << f.name;
    EXPECT_TRUE(looks_like_image(f.bytes().first(20))) << f.name;
  }
}

TEST(LooksLikeImage, NotTexts) {
  using namespace std::string_literals;
  for (const char* text :
       {"BMW builds cars in Munich.", "BM", "P1 incident in the data centre", "P6\n\n- a list",
        "P3 ", "P4\t\n", "Passages", "", "GIF is a format", "II. Method"}) {
    EXPECT_EQ(looks_like_image(as_bytes(text)), text == "BM"s) << text;
  }
  for (const char* head : {"P1 12 7", "P6\n# by hand\n", "P5\r\n  3 4 255\n", "P3\t1"})
    EXPECT_TRUE(looks_like_image(as_bytes(head))) << head;
  for (int size = 0; size < 256; ++size) {
    const bool known = size == 12 || size == 40 || size == 52 || size == 56 || size == 64 ||
                       size == 108 || size == 124;
    const std::string head = "BM" + std::string(12, '\0') + static_cast<char>(size);
    EXPECT_EQ(looks_like_image(as_bytes(head + "\0\0\0"s)), known) << size;
    EXPECT_FALSE(looks_like_image(as_bytes(head + "\0\0\1"s))) << size;
    EXPECT_TRUE(looks_like_image(as_bytes(head))) << size;  // too short to tell
  }
  // decode_image() has words of its own for a damaged one.
  EXPECT_EQ(decode_image(as_bytes("BMW builds cars in Munich.")).error().message(),
            "bmp: a header of 1852383347 bytes");
}

// Where FFmpeg would give other pixels than the reference, silence would be worse than an error.
TEST(Image, RefusesWhatItCannotDecodeRight) {
  if (!kWithFfmpeg) GTEST_SKIP() << "built without FFmpeg";
  using namespace std::string_literals;
  const auto expect = [](const std::string& file, const char* message) {
    const Result<Image> image = decode_image(as_bytes(file));
    EXPECT_EQ(image.error().code(), Code::kUnimplemented);
    EXPECT_EQ(image.error().message(), message);
  };
  std::string grid(fixture("avif_420").file.begin(), fixture("avif_420").file.end());
  grid.replace(grid.find("av01Color"), 4, "grid");
  expect(grid, "avif: a picture of kind 'grid', expected 'av01'");
  expect(
      "\0\0\0\x10"
      "ftypavis\0\0\0\0"
      "\0\0\0\x0c"
      "moov1234"s,
      "avif: a sequence without a still picture");
  std::string matrix(fixture("avif_420").file.begin(), fixture("avif_420").file.end());
  matrix[matrix.find("nclx") + 9] = 8;  // YCgCo
  expect(matrix, "avif: YUV with colour matrix 8 of H.273");
  const auto tiff = [](const std::string& entry) { return "II*\0\x08\0\0\0\1\0"s + entry; };
  expect(tiff("\3\1\3\0\1\0\0\0\7\0\0\0"s), "tiff: JPEG inside TIFF");
  expect(tiff("\6\1\3\0\1\0\0\0\x08\0\0\0"s), "tiff: colours of kind 8");
  expect("II*\0\x08\0\0\0\2\0\6\1\3\0\1\0\0\0\3\0\0\0\x15\1\3\0\1\0\0\0\2\0\0\0"s,
         "tiff: a palette with transparency");
  expect(tiff("\x53\1\3\0\1\0\0\0\3\0\0\0"s),
         "tiff: samples of 1 bits and kind 3, expected unsigned ones of up to 16");
}

// A file cut anywhere in its first half gives an error, whatever the format, and never pixels.
TEST(Image, TruncationIsAnError) {
  for (const char* name :
       {"jpeg_420_17x13", "jpeg_progressive", "jpeg_cmyk", "webp_lossy", "webp_lossless_alpha",
        "png_rgb_8", "png_rgba_16_interlaced", "gif_rgb", "bmp_24", "bmp_rle8"}) {
    const std::span<const std::byte> bytes = fixture(name).bytes();
    ASSERT_TRUE(decode_image(bytes).ok()) << name;
    for (size_t size = 0; size < bytes.size() / 2; ++size) {
      ASSERT_FALSE(decode_image(bytes.first(size)).ok()) << name << " cut to " << size << " bytes";
    }
  }
}

TEST(Image, PixelLimit) {
  for (const char* name :
       {"jpeg_420_17x13", "jpeg_progressive", "jpeg_cmyk", "webp_lossy", "webp_animated",
        "webp_lossless_alpha", "png_rgb_8", "png_rgba_16_interlaced", "png_animated", "gif_rgb",
        "gif_animated", "bmp_24", "tiff_raw", "tiff_lzw", "pnm_rgb", "jpeg2000_lossless",
        "avif_limited_range"}) {
    if (!fixture(name).can_be_decoded()) continue;
    EXPECT_TRUE(decode_image(fixture(name).bytes(), {.max_pixels = 17 * 13}).ok()) << name;
    const Result<Image> refused = decode_image(fixture(name).bytes(), {.max_pixels = 17 * 13 - 1});
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
    EXPECT_THAT(refused.error().message(), HasSubstr("17x13 pixels, at most 220 are allowed"));
  }
}

// A header may promise what nobody has the memory for.
TEST(Image, HugeSizesAreRefusedBeforeAllocating) {
  const std::string gif("GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\2", 24);
  EXPECT_THAT(decode_image(as_bytes(gif)).error().message(), HasSubstr("65535x65535 pixels"));
  EXPECT_THAT(decode_image(fixture("bmp_negative_width").bytes()).error().message(),
              HasSubstr("at most 178956970"));
}

}  // namespace
}  // namespace vlr
