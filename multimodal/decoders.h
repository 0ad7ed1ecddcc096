/// The decoders behind decode_image(), one file each, and the colour rules that they share.
/// Every decoder checks its own format to the end: the caller has looked at the first bytes only.
#ifndef VLR_MULTIMODAL_DECODERS_H_
#define VLR_MULTIMODAL_DECODERS_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "multimodal/image.h"
#include "vlr/status.h"

namespace vlr::media {

using Bytes = std::span<const uint8_t>;

Status decode_jpeg(Bytes bytes, const DecodeLimits& limits, RowSink& sink);
Result<Image> decode_png(Bytes bytes, const DecodeLimits& limits);
Result<Image> decode_webp(Bytes bytes, const DecodeLimits& limits);
Result<Image> decode_gif(Bytes bytes, const DecodeLimits& limits);
Result<Image> decode_bmp(Bytes bytes, const DecodeLimits& limits);
/// kUnimplemented in builds without libheif.
Result<Image> decode_heic(Bytes bytes, const DecodeLimits& limits);
/// "1.15.1"; empty in builds without libheif.
std::string_view heif_version();

/// What FFmpeg decodes; kUnimplemented in builds without it.
enum class OtherFormat { kTiff, kAvif, kJpeg2000, kPnm };
Result<Image> decode_other(OtherFormat format, Bytes bytes, const DecodeLimits& limits);

/// Builds with stb_image; elsewhere kUnimplemented, a plain PNM by decode_other().
Result<Image> decode_tga(Bytes bytes, const DecodeLimits& limits);
Result<Image> decode_psd(Bytes bytes, const DecodeLimits& limits);
Result<Image> decode_plain_pnm(Bytes bytes, const DecodeLimits& limits);
/// TGA has no magic number: whether the fields of a header make sense together.
bool is_tga(Bytes bytes);
/// Of grey or RGB in binary, with 255 for white.
bool is_plain_pnm(Bytes bytes);

/// The format of what looks_like_image(), with its article.
std::string_view picture_name(std::span<const std::byte> bytes);

/// Which sizes the header of a BMP may have, in bytes: its versions of OS/2 and Windows.
constexpr bool is_bmp_header_size(uint32_t bytes) {
  constexpr std::array<uint32_t, 7> kSizes = {12, 40, 52, 56, 64, 108, 124};
  return std::find(kSizes.begin(), kSizes.end(), bytes) != kSizes.end();
}

/// Sides of at least 1 and no more pixels than allowed.
Status check_size(std::string_view format, int64_t width, int64_t height,
                  const DecodeLimits& limits);

/// Decoding at `bytes_per_pixel`, which counts everything that is in memory at once, takes 2 GiB at
/// most. For formats that take more than Options::max_decoded_pixels lets expect.
Status check_decode_bytes(std::string_view format, int64_t width, int64_t height,
                          int64_t bytes_per_pixel);

/// A picture of zeros.
Image make_image(int64_t width, int64_t height);

/// One colour value over white: 255 * (1 - alpha) + value * alpha, rounded as Pillow's paste()
/// does.
constexpr uint8_t over_white(uint32_t value, uint32_t alpha) {
  const uint32_t t = 255 * (255 - alpha) + value * alpha + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

/// A 16-bit grey sample as 8 bits: Pillow saturates where others shift.
constexpr uint8_t grey16_to_8(uint32_t value) {
  return static_cast<uint8_t>(std::min(value, 255u));
}

/// 256 colours. Entries that a file leaves out stay black, as in Pillow.
class Palette {
 public:
  /// `levels` shades from black to white: grey pictures of 1, 2, 4 and 8 bits.
  static Palette grey(int levels = 256) {
    Palette p;
    for (int i = 0; i < levels; ++i) {
      const auto v = static_cast<uint8_t>(255 * i / (levels - 1));
      p.set(static_cast<size_t>(i), v, v, v);
    }
    return p;
  }
  void set(size_t i, uint8_t r, uint8_t g, uint8_t b) { colors_[i] = {r, g, b}; }
  const std::array<uint8_t, 3>& operator[](uint8_t i) const { return colors_[i]; }

 private:
  std::array<std::array<uint8_t, 3>, 256> colors_{};
};

/// indices [n] -> rgb [n, 3]
inline void look_up(Bytes indices, const Palette& palette, uint8_t* rgb) {
  for (const uint8_t i : indices) rgb = std::copy_n(palette[i].data(), 3, rgb);
}

}  // namespace vlr::media

#endif  // VLR_MULTIMODAL_DECODERS_H_
