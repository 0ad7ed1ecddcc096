// TGA, PSD and PNM through stb_image, as far as its pixels are Pillow's. It takes what is missing at a
// file's end for zeros, so that has to be looked for here.
#include "multimodal/decoders.h"

#include <fmt/format.h>

#include <initializer_list>
#include <optional>

#ifdef VLR_WITH_STB
#include <cstring>
#include <memory>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_TGA
#define STBI_ONLY_PSD
#define STBI_ONLY_PNM
#define STBI_NO_STDIO
#define STBI_NO_FAILURE_STRINGS
#include <stb/stb_image.h>
#endif

namespace vlr::media {
namespace {

bool is_one_of(int64_t value, std::initializer_list<int64_t> list) {
  return std::find(list.begin(), list.end(), value) != list.end();
}
int64_t little16(Bytes b, size_t at) { return b[at] | b[at + 1] << 8; }

/// The 18 bytes that a TGA begins with.
struct TgaHeader {
  int64_t id_bytes, has_palette, kind, palette_begin, palette_size, palette_bits, width, height,
      bits, flags;

  explicit TgaHeader(Bytes b)
      : id_bytes(b[0]),
        has_palette(b[1]),
        kind(b[2]),
        palette_begin(little16(b, 3)),
        palette_size(little16(b, 5)),
        palette_bits(b[7]),
        width(little16(b, 12)),
        height(little16(b, 14)),
        bits(b[16]),
        flags(b[17]) {}
  bool compressed() const { return (kind & 8) != 0; }
  int64_t color_kind() const { return kind & 7; }  // 1: palette, 2: RGB, 3: grey
};

#ifdef VLR_WITH_STB

int64_t big(Bytes b, size_t at, size_t count) {
  int64_t v = 0;
  for (size_t i = 0; i < count; ++i) v = v << 8 | (at + i < b.size() ? b[at + i] : 0);
  return v;
}

/// A file and whether more of it was asked for than there is.
struct Source {
  Bytes bytes;
  size_t at = 0;
  bool ran_out = false;
};

constexpr stbi_io_callbacks kCallbacks = {
    .read =
        [](void* user, char* out, int size) {
          auto& s = *static_cast<Source*>(user);
          const size_t count = std::min(static_cast<size_t>(size), s.bytes.size() - s.at);
          std::memcpy(out, s.bytes.data() + s.at, count);
          s.at += count;
          s.ran_out = s.ran_out || count == 0;
          return static_cast<int>(count);
        },
    .skip =
        [](void* user, int size) {
          auto& s = *static_cast<Source*>(user);
          const size_t left = s.bytes.size() - s.at;
          s.ran_out = s.ran_out || size < 0 || static_cast<size_t>(size) > left;
          s.at += std::min(static_cast<size_t>(std::max(size, 0)), left);
        },
    .eof =
        [](void* user) {
          const auto& s = *static_cast<Source*>(user);
          return s.at == s.bytes.size() ? 1 : 0;
        },
};

Status truncated(std::string_view format, Bytes bytes) {
  return {Code::kDataLoss, fmt::format("{}: damaged or truncated: {} bytes end in the pixels",
                                       format, bytes.size())};
}

/// A picture of `channels` values a pixel, 1, 3 or 4 (the last one transparency); its pixels, if they
/// are not compressed, end at byte `end`.
Result<Image> load(std::string_view format, Bytes bytes, int64_t width, int64_t height,
                   int channels, int64_t end, const DecodeLimits& limits) {
  VLR_RETURN_IF_ERROR(check_size(format, width, height, limits));
  VLR_RETURN_IF_ERROR(check_decode_bytes(format, width, height, 4 + 4 + 3));
  if (end > std::ssize(bytes)) return truncated(format, bytes);
  Source source{bytes};
  int w = 0, h = 0, stored = 0;
  const int wanted = channels == 4 ? 4 : 3;
  const std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels(
      stbi_load_from_callbacks(&kCallbacks, &source, &w, &h, &stored, wanted), &stbi_image_free);
  if (source.ran_out) return truncated(format, bytes);
  if (!pixels || w != width || h != height)
    return {Code::kDataLoss, fmt::format("{}: damaged pixels in {} bytes", format, bytes.size())};
  Image image = make_image(width, height);
  const uint8_t* in = pixels.get();
  if (wanted == 3) {
    std::copy_n(in, image.rgb.size(), image.rgb.data());
    return image;
  }
  uint8_t* rgb = image.rgb.data();
  for (int64_t i = 0; i < width * height; ++i, in += 4, rgb += 3) {
    for (int c = 0; c < 3; ++c) rgb[c] = over_white(in[c], in[3]);
  }
  return image;
}

#endif

/// What follows the two letters of a PNM: numbers, with white space and comments before them, and one
/// byte behind the last.
struct PnmHeader {
  int64_t width = 0, height = 0, most = 0;
  size_t end = 0;
};
std::optional<PnmHeader> pnm_header(Bytes b) {
  PnmHeader h;
  size_t at = 2;
  const auto is_space = [&](size_t i) { return b[i] == ' ' || (b[i] >= '\t' && b[i] <= '\r'); };
  for (int64_t* number : {&h.width, &h.height, &h.most}) {
    for (bool comment = false; at < b.size() && (comment || b[at] == '#' || is_space(at)); ++at)
      comment = b[at] != '\n' && b[at] != '\r' && (comment || b[at] == '#');
    const size_t first = at;
    for (; at < b.size() && b[at] >= '0' && b[at] <= '9' && at < first + 9; ++at)
      *number = 10 * *number + (b[at] - '0');
    if (at == first || at == b.size() || !is_space(at)) return std::nullopt;
  }
  h.end = at + 1;
  return h;
}

}  // namespace

bool is_tga(Bytes b) {
  if (b.size() < 18) return false;
  const TgaHeader h(b);
  const bool kinds =
      h.has_palette == 1
          ? is_one_of(h.kind, {1, 9}) && h.palette_size > 0 && h.bits == 8 &&
                is_one_of(h.palette_bits, {15, 16, 24, 32})
          : h.has_palette == 0 &&
                ((is_one_of(h.kind, {2, 10}) && is_one_of(h.bits, {15, 16, 24, 32})) ||
                 (is_one_of(h.kind, {3, 11}) && is_one_of(h.bits, {8, 16}))) &&
                std::all_of(&b[3], &b[8], [](uint8_t v) { return v == 0; });
  return kinds && h.width > 0 && h.height > 0 && (h.flags & 0xc0) == 0;
}

bool is_plain_pnm(Bytes b) {
  if (b.size() < 3 || b[0] != 'P' || (b[1] != '5' && b[1] != '6')) return false;
  const std::optional<PnmHeader> header = pnm_header(b);
  return header && header->most == 255;
}

#ifdef VLR_WITH_STB

Result<Image> decode_tga(Bytes b, const DecodeLimits& limits) {
  const TgaHeader h(b);
  const bool known = (h.color_kind() == 1 && h.palette_bits == 24 && h.palette_begin == 0) ||
                     (h.color_kind() == 2 && is_one_of(h.bits, {24, 32})) ||
                     (h.color_kind() == 3 && h.bits == 8);
  if (!known || (h.flags & 0x10) != 0) {
    return {Code::kUnimplemented,
            fmt::format("tga: kind {}, {} bits a pixel, {} a colour of the palette, flags 0x{:02x}",
                        h.kind, h.bits, h.palette_bits, h.flags)};
  }
  const int64_t begin = 18 + h.id_bytes + h.palette_size * (h.has_palette ? 3 : 0);
  const int64_t end = begin + (h.compressed() ? 0 : h.width * h.height * h.bits / 8);
  return load("tga", b, h.width, h.height, static_cast<int>(h.bits / 8), end, limits);
}

Result<Image> decode_psd(Bytes b, const DecodeLimits& limits) {
  const int64_t channels = big(b, 12, 2), height = big(b, 14, 4), width = big(b, 18, 4),
                depth = big(b, 22, 2), mode = big(b, 24, 2);
  constexpr int64_t kRgb = 3;
  if (b.size() < 26) return truncated("psd", b);
  if (mode != kRgb || depth != 8 || channels != 3) {
    return {Code::kUnimplemented,
            fmt::format("psd: mode {}, {} channels of {} bits, expected mode 3 (RGB), 3 of 8 bits",
                        mode, channels, depth)};
  }
  int64_t at = 26;
  for (int section = 0; section < 3; ++section) {  // palette, resources, layers
    if (at > std::ssize(b)) return truncated("psd", b);
    at += 4 + big(b, static_cast<size_t>(at), 4);
  }
  if (at + 2 > std::ssize(b)) return truncated("psd", b);
  VLR_RETURN_IF_ERROR(check_size("psd", width, height, limits));
  const int64_t compression = big(b, static_cast<size_t>(at), 2);
  const int64_t end = at + 2 + height * channels * (compression == 0 ? width : 2);
  return load("psd", b, width, height, 3, end, limits);
}

Result<Image> decode_plain_pnm(Bytes b, const DecodeLimits& limits) {
  const PnmHeader h = pnm_header(b).value_or(PnmHeader());
  const int channels = b[1] == '6' ? 3 : 1;
  VLR_RETURN_IF_ERROR(check_size("pnm", h.width, h.height, limits));
  return load("pnm", b, h.width, h.height, channels,
              static_cast<int64_t>(h.end) + h.width * h.height * channels, limits);
}

#else

Result<Image> decode_tga(Bytes, const DecodeLimits&) {
  return {Code::kUnimplemented, "tga: only builds with VLR_WITH_STB, stb_image, decode it"};
}
Result<Image> decode_psd(Bytes, const DecodeLimits&) {
  return {Code::kUnimplemented, "psd: only builds with VLR_WITH_STB, stb_image, decode it"};
}
Result<Image> decode_plain_pnm(Bytes b, const DecodeLimits& limits) {
  return decode_other(OtherFormat::kPnm, b, limits);
}

#endif

}  // namespace vlr::media
