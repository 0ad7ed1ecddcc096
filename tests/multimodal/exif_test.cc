#include "multimodal/exif.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "multimodal/media.h"
#include "tests/multimodal/fixtures.h"
#include "tests/support/crc32.h"

namespace vlr {
namespace {

using media::exif_orientation;
using media::oriented;
using media::tiff_tag;

std::span<const uint8_t> as_u8(const std::string& s) {
  return {reinterpret_cast<const uint8_t*>(s.data()), s.size()};
}
std::span<const std::byte> as_bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

std::string number(uint32_t value, int bytes, bool big) {
  std::string s;
  for (int i = 0; i < bytes; ++i) s += static_cast<char>(value >> 8 * (big ? bytes - 1 - i : i));
  return s;
}

struct Entry {
  uint32_t tag, type, count, value;  // the value is written as the type has it
};

std::string tiff(const std::vector<Entry>& entries, bool big) {
  std::string s = big ? "MM" : "II";
  s += number(42, 2, big) + number(8, 4, big);
  s += number(static_cast<uint32_t>(entries.size()), 2, big);
  for (const Entry& e : entries) {
    s += number(e.tag, 2, big) + number(e.type, 2, big) + number(e.count, 4, big);
    const bool is_short = e.type == 3 && e.count <= 2;
    s += number(e.value, is_short ? 2 : 4, big) + (is_short ? std::string(2, '\0') : "");
  }
  return s + number(0, 4, big);
}

std::string file_of(std::string_view name) {
  const std::vector<uint8_t>& file = fixture(name).file;
  return {file.begin(), file.end()};
}

std::string jpeg_with(const std::string& exif) {
  const std::string body = std::string("Exif\0\0", 6) + exif;
  const std::string plain = file_of("jpeg_420_17x13");
  return plain.substr(0, 2) + "\xff\xe1" + number(static_cast<uint32_t>(body.size() + 2), 2, true) +
         body + plain.substr(2);
}

std::string png_with(const std::string& exif, bool behind_the_pixels) {
  const std::string plain = file_of("png_rgb_8"), body = "eXIf" + exif;
  const size_t at = behind_the_pixels ? plain.size() - 12 : 33;
  return plain.substr(0, at) + number(static_cast<uint32_t>(exif.size()), 4, true) + body +
         number(test::crc32(body), 4, true) + plain.substr(at);
}

// A file with extended header around the pixels of a plain one.
std::string webp_with(const std::string& exif, char flags) {
  const std::string pixels = file_of("webp_lossy").substr(12);
  std::string body = "WEBPVP8X" + number(10, 4, false) + flags + std::string(3, '\0') +
                     number(16, 3, false) + number(12, 3, false) + pixels + "EXIF" +
                     number(static_cast<uint32_t>(exif.size()), 4, false) + exif;
  if (exif.size() % 2) body += '\0';
  return "RIFF" + number(static_cast<uint32_t>(body.size()), 4, false) + body;
}

// Where pixel (y, x) of the turned picture comes from, as Pillow's transpose() methods: nothing,
// FLIP_LEFT_RIGHT, ROTATE_180, FLIP_TOP_BOTTOM, TRANSPOSE, ROTATE_270, TRANSVERSE, ROTATE_90.
Image expected_turn(const Image& in, int orientation) {
  const bool swap = orientation >= 5;
  Image out{swap ? in.height : in.width, swap ? in.width : in.height, {}};
  const int64_t right = in.width - 1, bottom = in.height - 1;
  for (int64_t y = 0; y < out.height; ++y) {
    for (int64_t x = 0; x < out.width; ++x) {
      const int64_t from[9][2] = {{},
                                  {y, x},
                                  {y, right - x},
                                  {bottom - y, right - x},
                                  {bottom - y, x},
                                  {x, y},
                                  {bottom - x, y},
                                  {bottom - x, right - y},
                                  {x, right - y}};
      const auto& [from_y, from_x] = from[orientation];
      const auto pixel = in.rgb.begin() + 3 * (from_y * in.width + from_x);
      out.rgb.insert(out.rgb.end(), pixel, pixel + 3);
    }
  }
  return out;
}

TEST(Exif, AllOrientationsOfAllFormats) {
  for (const bool big : {false, true}) {
    for (uint32_t orientation = 1; orientation <= 8; ++orientation) {
      const std::string exif = tiff({{271, 2, 3, 0}, {274, 3, 1, orientation}}, big);
      for (const std::string& file :
           {jpeg_with(exif), png_with(exif, false), png_with(exif, true), webp_with(exif, 8)}) {
        ASSERT_EQ(exif_orientation(as_bytes(file)), static_cast<int>(orientation))
            << file.substr(0, 4);
        const Result<Image> stored = decode_image(as_bytes(file));
        ASSERT_TRUE(stored.ok()) << stored.error().message();
        const Image turned = expected_turn(*stored, static_cast<int>(orientation));
        const Result<Image> got = oriented(*stored, static_cast<int>(orientation));
        ASSERT_EQ(got->width, turned.width);
        ASSERT_EQ(got->rgb, turned.rgb) << orientation;
      }
    }
  }
}

TEST(Exif, RotationAndMirrorOfAvif) {
  for (int orientation = 2; orientation <= 8; ++orientation) {
    const std::string name = "avif_orientation_" + std::to_string(orientation) + "_ignored";
    EXPECT_EQ(exif_orientation(fixture(name).bytes()), orientation);
  }
  EXPECT_EQ(exif_orientation(fixture("avif_420").bytes()), 1);
}

TEST(Exif, LoadImageTurnsBeforeItResizes) {
  const std::string file = jpeg_with(tiff({{274, 3, 1, 6}}, true));
  const MediaOptions wide = {.min_pixels = 8 * 1024};
  MediaOptions with_exif = wide;
  with_exif.exif = true;
  const Result<Patches> turned = load_image(as_bytes(file), with_exif);
  ASSERT_TRUE(turned.ok()) << turned.error().message();
  const Image upright = expected_turn(*decode_image(as_bytes(file)), 6);
  const Result<Size> size = smart_resize(upright.height, upright.width, 32, 8 * 1024, 1e7);
  const Result<Patches> expected = patchify_image(*resize_pillow_bicubic(upright, *size));
  EXPECT_TRUE(std::ranges::equal(turned->data, expected->data));
  EXPECT_FALSE(std::ranges::equal(load_image(as_bytes(file), wide)->data, turned->data));
  const FrameSource frame = [&](int64_t) -> Result<std::span<const std::byte>> {
    return as_bytes(file);
  };
  EXPECT_FALSE(std::ranges::equal(load_frames(2, frame, with_exif)->data,
                                  load_frames(2, frame, wide)->data));
}

// As Pillow 12.0 reads them; where Pillow throws (a header that is not TIFF's), upright.
TEST(Exif, DamagedOnesAreIgnored) {
  const std::string good = tiff({{274, 3, 1, 6}}, false);
  const auto orientation = [](const std::string& exif) {
    return exif_orientation(as_bytes(jpeg_with(exif)));
  };
  EXPECT_EQ(orientation(good), 6);
  for (size_t size = 0; size < good.size(); ++size)  // the entry ends four bytes before the end
    EXPECT_EQ(orientation(good.substr(0, size)), size < good.size() - 4 ? 1 : 6) << size;
  for (size_t at = 0; at < good.size(); ++at) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(~flipped[at]);
    const int got = orientation(flipped);
    EXPECT_TRUE(got == 1 || got == 6) << at;
  }
  EXPECT_EQ(orientation("junk" + good), 1);
  EXPECT_EQ(orientation(std::string("Exif\0\0", 6) + good), 6);  // said twice
  for (const uint32_t value : {0u, 9u, 255u, 65535u})
    EXPECT_EQ(orientation(tiff({{274, 3, 1, value}}, false)), 1);
  EXPECT_EQ(orientation(tiff({{274, 4, 1, 6}}, false)), 6);                  // LONG
  EXPECT_EQ(orientation(tiff({{274, 2, 1, 6}}, false)), 1);                  // text
  EXPECT_EQ(orientation(tiff({{274, 77, 1, 6}}, false)), 1);                 // no such type
  EXPECT_EQ(orientation(tiff({{274, 3, 0, 6}}, false)), 1);                  // no values
  EXPECT_EQ(orientation(tiff({{274, 3, 1, 6}, {274, 3, 1, 8}}, false)), 8);  // the last one counts
  // A value that should stand beyond the end hides all entries behind it.
  EXPECT_EQ(orientation(tiff({{271, 2, 9, 0xfffff0}, {274, 3, 1, 6}}, false)), 1);
  EXPECT_EQ(orientation(tiff({{274, 3, 1, 6}, {271, 2, 9, 0xfffff0}}, false)), 6);
}

TEST(Exif, ContainersCutOrWithoutIt) {
  const std::string exif = tiff({{274, 3, 1, 6}}, false);
  for (const std::string& file : {jpeg_with(exif), png_with(exif, true), webp_with(exif, 8)}) {
    for (size_t size = 0; size <= file.size(); ++size) {
      const int got = exif_orientation(as_bytes(file.substr(0, size)));
      ASSERT_TRUE(got == 1 || got == 6) << size;
    }
  }
  EXPECT_EQ(exif_orientation(as_bytes(webp_with(exif, 0))), 1);  // its header denies it
  for (const char* name : {"jpeg_420_17x13", "png_rgb_8", "webp_lossy", "gif_rgb", "bmp_24"})
    EXPECT_EQ(exif_orientation(as_bytes(file_of(name))), 1) << name;
  EXPECT_EQ(exif_orientation(as_bytes(file_of("jpeg_exif_orientation_ignored"))), 6);
  EXPECT_EQ(exif_orientation({}), 1);
}

TEST(Exif, IntegersOfADirectory) {
  for (const bool big : {false, true}) {
    const std::string s = tiff({{256, 4, 1, 70000}, {258, 3, 2, 8}}, big);
    EXPECT_EQ(tiff_tag(as_u8(s), 256), 70000u);
    EXPECT_EQ(tiff_tag(as_u8(s), 258), 8u);
    EXPECT_EQ(tiff_tag(as_u8(s), 259), std::nullopt);
  }
  EXPECT_EQ(tiff_tag({}, 256), std::nullopt);
}

}  // namespace
}  // namespace vlr
