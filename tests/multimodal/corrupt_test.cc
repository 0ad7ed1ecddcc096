// Damaged and hostile pictures: every one ends in a clean error that names the format.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "multimodal/image.h"
#include "multimodal/media.h"
#include "tests/multimodal/fixtures.h"
#include "tests/support/crc32.h"
#include "tests/support/in_child.h"

namespace vlr {
namespace {

using testing::HasSubstr;

std::span<const std::byte> as_bytes(const std::string& s) { return std::as_bytes(std::span(s)); }

// One well-formed picture or more of every format that this build decodes.
std::vector<const Fixture*> well_formed() {
  std::vector<const Fixture*> all;
  for (const char* name : {"jpeg_420_17x13",
                           "jpeg_progressive",
                           "jpeg_ycck",
                           "png_rgb_8",
                           "png_palette_4_interlaced",
                           "webp_lossy",
                           "webp_lossless_alpha",
                           "webp_animated",
                           "gif_interlaced",
                           "gif_rgb",
                           "bmp_24",
                           "bmp_rle8",
                           "tiff_raw",
                           "tiff_lzw",
                           "tiff_deflate",
                           "avif_420",
                           "avif_rgba_420",
                           "avif_animated",
                           "heic_420",
                           "heic_rgba",
                           "jpeg2000_lossless",
                           "jpeg2000_rgba",
                           "pnm_rgb",
                           "pnm_grey",
                           "tga_rgba",
                           "tga_runs",
                           "psd_raw",
                           "psd_packbits"}) {
    if (fixture(name).can_be_decoded()) all.push_back(&fixture(name));
  }
  return all;
}

void expect_clean(const Status& error, const std::string& format, const std::string& what) {
  const std::set<Code> kCodes = {Code::kDataLoss, Code::kInvalidArgument, Code::kUnimplemented};
  EXPECT_TRUE(kCodes.contains(error.code())) << what << ": " << error.message();
  EXPECT_TRUE(error.message().starts_with(format) || error.message().starts_with("not an image"))
      << what << ": " << error.message();
  EXPECT_GT(error.message().size(), format.size() + 5) << what;
}

// Cut at 24 places, from the first bytes to three quarters of the file.
TEST(Corrupt, Truncated) {
  for (const Fixture* f : well_formed()) {
    for (size_t i = 0; i < 24; ++i) {
      const size_t size = f->file.size() * 3 / 4 * i / 23;
      const Result<Image> image = decode_image(f->bytes().first(size));
      ASSERT_FALSE(image.ok()) << f->name << " cut to " << size << " of " << f->file.size();
      expect_clean(image.error(), f->format(), f->name);
    }
  }
}

// Every byte of the first kilobyte inverted, one at a time, and 32 times eight random bytes at
// once. Some of it does no harm; what does is an error.
TEST(Corrupt, FlippedBytes) {
  std::mt19937 random(5);
  std::map<std::string, int> errors;
  for (const Fixture* f : well_formed()) {
    const auto check = [&](const std::vector<uint8_t>& file, const std::string& what) {
      const Result<Image> image =
          decode_image(std::as_bytes(std::span(file)), {.max_pixels = 1 << 20});
      if (image.ok()) {
        EXPECT_EQ(image->rgb.size(), static_cast<size_t>(3 * image->width * image->height)) << what;
        return;
      }
      ++errors[f->format()];
      // The first bytes may have become another format's.
      expect_clean(image.error(), "", f->name + what);
    };
    for (size_t at = 0; at < std::min<size_t>(f->file.size(), 1024); ++at) {
      std::vector<uint8_t> file = f->file;
      file[at] = static_cast<uint8_t>(~file[at]);
      check(file, " with byte " + std::to_string(at) + " inverted");
    }
    for (int i = 0; i < 32; ++i) {
      std::vector<uint8_t> file = f->file;
      for (int k = 0; k < 8; ++k) file[random() % file.size()] = static_cast<uint8_t>(random());
      check(file, " with random bytes, case " + std::to_string(i));
    }
  }
  for (const Fixture* f : well_formed()) EXPECT_GE(errors[f->format()], 25) << f->format();
}

// `file` with `bytes` written over what stands at `at`.
std::string with(std::string_view name, size_t at, std::string_view bytes) {
  std::string file(fixture(name).file.begin(), fixture(name).file.end());
  file.replace(at, bytes.size(), bytes);
  return file;
}
size_t find(std::string_view name, std::string_view text) {
  const std::string file(fixture(name).file.begin(), fixture(name).file.end());
  return file.find(text);
}
using namespace std::string_literals;

std::string png_chunk(const std::string& kind, const std::string& body) {
  const auto big = [](uint32_t v) {
    std::string s;
    for (int shift = 24; shift >= 0; shift -= 8) s += static_cast<char>(v >> shift);
    return s;
  };
  return big(static_cast<uint32_t>(body.size())) + kind + body + big(test::crc32(kind + body));
}

std::string with_header(const std::string& ihdr) {
  const std::string png(fixture("png_rgb_8").file.begin(), fixture("png_rgb_8").file.end());
  return png.substr(0, 8) + png_chunk("IHDR", ihdr) + png.substr(33);
}

TEST(Corrupt, HostileHeaders) {
  struct Case {
    std::string file;
    Code code;
    std::string message;
    bool ffmpeg = false;
  };
  const size_t sof = find("jpeg_420_17x13", "\xff\xc0"),
               sof2 = find("jpeg_progressive", "\xff\xc2");
  const std::string huge = "\xff\xff\xff\xff";
  const std::vector<Case> cases = {
      {with("jpeg_420_17x13", sof + 5, "\xff\xdc\xff\xdc"s), Code::kInvalidArgument,
       "jpeg: 65500x65500 pixels, at most"},
      {with("jpeg_progressive", sof2 + 5, "\xff\xdc\xff\xdc"s), Code::kInvalidArgument,
       "jpeg: 65500x65500 pixels, at most"},
      {with("jpeg_420_17x13", sof + 7, "\0\0"s), Code::kDataLoss, "jpeg: Empty JPEG image"},
      {with("jpeg_420_17x13", sof + 4, "\x0c"), Code::kUnimplemented,
       "jpeg: Unsupported JPEG data"},
      {with("jpeg_420_17x13", sof + 1, "\xc5"), Code::kUnimplemented,
       "jpeg: Unsupported JPEG proc"},
      {with("jpeg_420_17x13", sof + 11, "\x55"), Code::kDataLoss, "jpeg: Bogus sampling factors"},
      {with_header("\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0"s), Code::kInvalidArgument,
       "png: 2147483647x2147483647 pixels, at most"},
      {with_header("\0\0\0\0\0\0\0\5\x08\2\0\0\0"s), Code::kDataLoss, "png: "},
      {with_header("\0\0\0\5\0\0\0\5\x07\2\0\0\0"s), Code::kDataLoss, "png: "},
      {with_header("\0\0\0\5\0\0\0\5\x08\5\0\0\0"s), Code::kDataLoss, "png: "},
      {with_header("\0\0\0\5\0\0\0\5\x08\2\1\0\0"s), Code::kDataLoss, "png: "},
      {with("webp_animated", 24, "\xff\xff\xff\xfe\0\0"s), Code::kInvalidArgument,
       "webp: 16777216x255 pixels, at most"},
      {with("webp_animated", 24, "\xff\x3f\0\xff\x3f\0"s), Code::kInvalidArgument,
       "webp: 16384x16384 pixels, at most"},
      {with("webp_animated", 24, "\0\0\0\0\0\0"s), Code::kDataLoss, "webp: damaged"},
      {with("webp_lossy", 4, huge), Code::kDataLoss, "webp: "},
      {with("gif_rgb", 6, huge), Code::kInvalidArgument, "gif: 65535x65535 pixels, at most"},
      {with("gif_4_colors", find("gif_4_colors", ",") + 5, huge), Code::kInvalidArgument,
       "gif: 65535x65535 pixels, at most"},
      {with("bmp_24", 18, "\xff\xff\xff\x7f\xff\xff\0\0"s), Code::kInvalidArgument,
       "bmp: 2147483647x65535 pixels, at most"},
      {with("bmp_24", 18, "\0\x20\0\0\0\x20\0\0"s), Code::kDataLoss, "bmp: truncated"},
      {with("bmp_rle8", 18, "\0\x20\0\0\0\x20\0\0"s), Code::kDataLoss, "bmp: the run lengths give"},
      {with("bmp_24", 28, "\x11"), Code::kUnimplemented, "bmp: 17 bits a pixel"},
      {"II*\0\x08\0\0\0\2\0\0\1\4\0\1\0\0\0\xff\xff\xff\x7f\1\1\4\0\1\0\0\0\xff\xff\0\0\0\0\0\0"s,
       Code::kInvalidArgument, "tiff: 2147483647x65535 pixels, at most", true},
      {"II*\0\xff\xff\xff\xff"s, Code::kDataLoss, "tiff: ", true},
      {"II*\0\x08\0\0\0\1\0\2\1\3\0\1\0\0\0\x40\0\0\0\0\0\0\0"s, Code::kUnimplemented,
       "tiff: samples of 64 bits", true},
      {with("avif_420", find("avif_420", "ispe") + 8, "\0\xff\xff\xff\0\xff\xff\xff"s),
       Code::kInvalidArgument, "avif: 16777215x16777215 pixels, at most", true},
      {with("avif_420", find("avif_420", "iloc") + 20, huge), Code::kDataLoss, "avif: ", true},
      {with("avif_420", find("avif_420", "pitm") + 8, "\0\7"s), Code::kUnimplemented,
       "avif: a picture of kind ''", true},
      {with("avif_420", find("avif_420", "meta"), "skip"), Code::kDataLoss,
       "avif: damaged or truncated: no box 'meta'", true},
      {with("jpeg2000_lossless", find("jpeg2000_lossless", "\xff\x51") + 6,
            "\x7f\xff\xff\xff\x7f\xff\xff\xff"),
       Code::kInvalidArgument, "jpeg2000: 2147483647x2147483647 pixels, at most", true},
      {with("jpeg2000_lossless", find("jpeg2000_lossless", "\xff\x51") + 22, "\0\0\0\0\0\0\0\0"s),
       Code::kDataLoss, "jpeg2000: ", true},
      {"P6 999999 999999 255\n", Code::kInvalidArgument, "pnm: 999999x999999 pixels, at most",
       true},
      {"P6\n# of many\n# comments\n99999999999999999999 7 255\n", Code::kInvalidArgument,
       "pnm: 2147483647x7 pixels, at most", true},
      {"P5 10000 10000 255\n", Code::kDataLoss, "pnm: damaged or truncated", true},
      {"P6 -3 4 255\n", Code::kDataLoss, "pnm: ", true},
  };
  for (const Case& c : cases) {
    if (c.ffmpeg && !kWithFfmpeg) continue;
    const Result<Image> image = decode_image(as_bytes(c.file));
    ASSERT_FALSE(image.ok()) << c.message;
    EXPECT_EQ(image.error().code(), c.code) << image.error().message();
    EXPECT_THAT(image.error().message(), testing::StartsWith(c.message));
  }
}

// Zeros, deflated: 258 of them cost 13 bits.
std::string deflated_zeros(int64_t count) {
  std::string out = "\x78\x9c";
  uint64_t bits = 0;
  int num_bits = 0;
  const auto put = [&](uint64_t value, int n) {
    bits |= value << num_bits;
    for (num_bits += n; num_bits >= 8; num_bits -= 8, bits >>= 8) out += static_cast<char>(bits);
  };
  put(3, 3);                                 // last block, fixed codes
  put(0b00001100, 8);                        // literal 0, code 00110000 from its first bit on
  for (int64_t i = 0; i < count / 258; ++i)  // length 258 (code 11000101), distance 1 (code 00000)
    put(0b10100011, 8), put(0, 5);
  put(0, 7 + 7);  // end of block
  return out + std::string(4, '\0');
}

// Compressed text and colour profiles are not looked at, whatever they grow to.
TEST(Corrupt, BombsInPngChunksAreSkipped) {
  const Fixture& f = fixture("png_rgb_8");
  const std::string zeros = deflated_zeros(64 << 20);
  std::string png(f.file.begin(), f.file.end());
  png.insert(33, png_chunk("zTXt", "k\0\0"s + zeros) + png_chunk("iCCP", "k\0\0"s + zeros) +
                     png_chunk("iTXt", "k\0\1\0\0\0"s + zeros));
  const Result<Image> image = decode_image(as_bytes(png));
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_EQ(image->rgb, f.rgb);
}

// A scan of nothing but "all blocks are done", a thousand times.
TEST(Corrupt, EndlessScans) {
  const std::string jpeg(fixture("jpeg_progressive").file.begin(),
                         fixture("jpeg_progressive").file.end());
  const size_t scan = jpeg.rfind("\xff\xda"), end = jpeg.size() - 2;
  std::string many = jpeg.substr(0, end);
  for (int i = 0; i < 1000; ++i) many += jpeg.substr(scan, end - scan);
  const Result<Image> image = decode_image(as_bytes(many + "\xff\xd9"));
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.error().code(), Code::kDataLoss);
  EXPECT_THAT(image.error().message(), HasSubstr("jpeg: more than 500 scans (at byte "));

  // The same file says that it is larger: each scan is more work, and fewer are allowed.
  std::string large = many;
  large.replace(large.find("\xff\xc2") + 5, 4, "\x0d\x48\x0d\x48");  // 3400 x 3400
  const Result<Image> too_much = decode_image(as_bytes(large + "\xff\xd9"));
  ASSERT_FALSE(too_much.ok());
  EXPECT_THAT(too_much.error().message(),
              HasSubstr("jpeg: more than 371 scans of that many pixels (at byte "));
}

constexpr int kLargest = 13377;  // squared: just below DecodeLimits::max_pixels

// A lossless WebP of one colour: five codes of one symbol each, which take no bits a pixel.
std::string webp_of_one_color(uint32_t width, uint32_t height) {
  uint64_t bits = 0;
  for (int code = 0; code < 5; ++code) bits |= uint64_t{1} << (3 + 4 * code);
  const auto little = [](uint64_t v, int bytes) {
    std::string s;
    for (int i = 0; i < bytes; ++i) s += static_cast<char>(v >> (8 * i));
    return s;
  };
  const std::string body = "\x2f" + little((width - 1) | (height - 1) << 14, 4) + little(bits, 5);
  const std::string chunk = "WEBPVP8L" + little(body.size(), 4) + body;
  return "RIFF" + little(chunk.size(), 4) + chunk;
}

// What is small and says that it is huge is either refused by its header or decoded in little memory.
TEST(Corrupt, BombsStayBelowTwoGigabytes) {
  const std::string side = "\0\0\x34\x41"s;  // kLargest
  const std::string j2k =
      with("jpeg2000_lossless", find("jpeg2000_lossless", "\xff\x4f\xff\x51") + 8, side + side);
  const std::string png =
      with_header(side + side + "\x10\x06\0\0\x01"s);  // 16 bits, RGBA, interlaced
  struct Case {
    const char* what;
    std::string file, message;
    int64_t most_megabytes;
  };
  const Case kCases[] = {
      {"webp", webp_of_one_color(kLargest, kLargest), "", 1700},
      {"png", png, "png: ", 1000},
      {"jpeg2000", j2k, "jpeg2000: 13377x13377 pixels take 22 bytes each", 300},
  };
  for (const Case& c : kCases) {
    if (!kWithFfmpeg && c.what == "jpeg2000"s) continue;
    const test::InChild ran = test::in_child([&] {
      const Result<Image> image = decode_image(as_bytes(c.file));
      if (c.message.empty()) return image.ok();
      return !image.ok() && image.error().message().starts_with(c.message);
    });
    EXPECT_TRUE(ran.as_expected) << c.what;
    EXPECT_LT(test::kSanitized ? 0 : ran.peak_megabytes, c.most_megabytes) << c.what;
  }
  // Too long for the model: known before there are pixels.
  for (const std::string& file :
       {webp_of_one_color(16383, 10), with_header("\x0a\xaa\xaa\xaa\0\0\0\1\x08\x02\0\0\0"s)}) {
    const test::InChild ran = test::in_child([&] {
      const auto patches = load_image(as_bytes(file));
      return !patches.ok() && patches.error().code() == Code::kInvalidArgument &&
             patches.error().message().ends_with("one side is more than 200 times the other");
    });
    EXPECT_TRUE(ran.as_expected);
    EXPECT_LT(test::kSanitized ? 0 : ran.peak_megabytes, 300);
  }
}

}  // namespace
}  // namespace vlr
