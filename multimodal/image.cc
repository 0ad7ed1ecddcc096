#include "multimodal/image.h"

#include <fmt/format.h>

#include <new>
#include <string>

#include "multimodal/decoders.h"
#include "multimodal/file_kind.h"

namespace vlr {
namespace media {

Status check_size(std::string_view format, int64_t width, int64_t height,
                  const DecodeLimits& limits) {
  if (width < 1 || height < 1) {
    return {Code::kDataLoss, fmt::format("{}: a picture of {}x{} pixels", format, width, height)};
  }
  if (height > limits.max_pixels / width) {
    return {Code::kInvalidArgument, fmt::format("{}: {}x{} pixels, at most {} are allowed", format,
                                                width, height, limits.max_pixels)};
  }
  const int64_t ratio = limits.max_aspect_ratio, shorter = std::min(width, height);
  if (ratio > 0 && std::max(width, height) > ratio * shorter) {
    return {Code::kInvalidArgument,
            fmt::format("{}: {}x{} pixels, one side is more than {} times the other", format, width,
                        height, ratio)};
  }
  return {};
}

Status check_decode_bytes(std::string_view format, int64_t width, int64_t height,
                          int64_t bytes_per_pixel) {
  constexpr int64_t kMaxBytes = int64_t{2} << 30;
  if (height <= kMaxBytes / bytes_per_pixel / width) return {};
  return {Code::kInvalidArgument,
          fmt::format("{}: {}x{} pixels take {} bytes each while they are decoded, {} bytes are "
                      "allowed",
                      format, width, height, bytes_per_pixel, kMaxBytes)};
}

Image make_image(int64_t width, int64_t height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
}

namespace {

enum class Format {
  kNone,
  kJpeg,
  kPng,
  kWebp,
  kGif,
  kBmp,
  kTiff,
  kAvif,
  kJpeg2000,
  kPnm,
  kHeic,
  kPsd,
  kTga
};

// Behind 'ftyp' a brand, a version, and the brands of other readers that may take the file, too.
// 'mif1' is any picture in this container.
Format format_of_brand(std::string_view text) {
  const std::string_view brand = text.substr(8, 4);
  if (brand == "avif" || brand == "avis") return Format::kAvif;
  if (brand.starts_with("hei") || brand.starts_with("hev")) return Format::kHeic;
  if (brand != "mif1") return Format::kNone;
  const auto size = static_cast<uint8_t>(text[3]);  // of the box; of 256 bytes or more it is enough
  const std::string_view others = text.substr(0, size < 16 ? text.size() : size);
  return others.find("hei", 16) != others.npos && others.find("avif", 16) == others.npos
             ? Format::kHeic
             : Format::kAvif;
}

Format format_of(Bytes bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto has = [&](std::string_view magic, size_t at = 0) {
    return text.size() >= at && text.substr(at).starts_with(magic);
  };
  using namespace std::string_view_literals;

  if (has("\xff\xd8\xff"sv)) return Format::kJpeg;
  if (has("\x89PNG\r\n\x1a\n"sv)) return Format::kPng;
  if (has("RIFF"sv) && has("WEBP"sv, 8)) return Format::kWebp;
  if (has("GIF87a"sv) || has("GIF89a"sv)) return Format::kGif;
  if (has("BM"sv)) return Format::kBmp;
  if (has("II*\0"sv) || has("MM\0*"sv)) return Format::kTiff;
  if (has("ftyp"sv, 4) && text.size() >= 12) return format_of_brand(text);
  if (has("\0\0\0\x0cjP  \r\n\x87\n"sv) || has("\xff\x4f\xff\x51"sv)) return Format::kJpeg2000;
  if (text.size() > 2 && text[0] == 'P' && text[1] >= '1' && text[1] <= '6' &&
      (text[2] == '\n' || text[2] == '\r' || text[2] == ' ' || text[2] == '\t')) {
    return Format::kPnm;
  }
  if (has("8BPS\0\1"sv)) return Format::kPsd;
  if (is_tga(bytes)) return Format::kTga;
  return Format::kNone;
}

// Behind "BM": at byte 14 the size of a header that there is.
bool goes_on_like_bmp(Bytes bytes) {
  if (bytes.size() < 18) return true;
  const uint32_t size = uint32_t{bytes[14]} | uint32_t{bytes[15]} << 8 | uint32_t{bytes[16]} << 16 |
                        uint32_t{bytes[17]} << 24;
  return is_bmp_header_size(size);
}

// Behind "P6": white space, then the width or a comment.
bool goes_on_like_pnm(Bytes bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t at = text.find_first_not_of(" \t\n\v\f\r", 2);
  return at != text.npos && (text[at] == '#' || (text[at] >= '0' && text[at] <= '9'));
}

Result<Image> decode(Bytes bytes, const DecodeLimits& limits) {
  switch (format_of(bytes)) {
    case Format::kJpeg: {
      ImageSink sink;
      VLR_RETURN_IF_ERROR(decode_jpeg(bytes, limits, sink));
      return sink.take();
    }
    case Format::kPng:
      return decode_png(bytes, limits);
    case Format::kWebp:
      return decode_webp(bytes, limits);
    case Format::kGif:
      return decode_gif(bytes, limits);
    case Format::kBmp:
      return decode_bmp(bytes, limits);
    case Format::kTiff:
      return decode_other(OtherFormat::kTiff, bytes, limits);
    case Format::kAvif:
      return decode_other(OtherFormat::kAvif, bytes, limits);
    case Format::kJpeg2000:
      return decode_other(OtherFormat::kJpeg2000, bytes, limits);
    case Format::kPnm:
      return is_plain_pnm(bytes) ? decode_plain_pnm(bytes, limits)
                                 : decode_other(OtherFormat::kPnm, bytes, limits);
    case Format::kPsd:
      return decode_psd(bytes, limits);
    case Format::kTga:
      return decode_tga(bytes, limits);
    case Format::kHeic:
      return decode_heic(bytes, limits);
    case Format::kNone:
      break;
  }
  return {Code::kInvalidArgument,
          fmt::format("not an image: {}", file_kind(std::as_bytes(bytes)).name)};
}

}  // namespace

std::string_view picture_name(std::span<const std::byte> bytes) {
  switch (format_of({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()})) {
    case Format::kJpeg:
      return "a JPEG picture";
    case Format::kPng:
      return "a PNG picture";
    case Format::kWebp:
      return "a WebP picture";
    case Format::kGif:
      return "a GIF picture";
    case Format::kBmp:
      return "a BMP picture";
    case Format::kTiff:
      return "a TIFF picture";
    case Format::kAvif:
      return "an AVIF picture";
    case Format::kJpeg2000:
      return "a JPEG 2000 picture";
    case Format::kPnm:
      return "a PNM picture";
    case Format::kHeic:
      return "a HEIC picture";
    case Format::kPsd:
      return "a PSD picture";
    case Format::kTga:
      return "a TGA picture";
    case Format::kNone:
      break;
  }
  return "not a picture";
}

}  // namespace media

bool looks_like_image(std::span<const std::byte> bytes) {
  const media::Bytes file(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  switch (media::format_of(file)) {
    case media::Format::kNone:
      return false;
    case media::Format::kBmp:
      return media::goes_on_like_bmp(file);
    case media::Format::kPnm:
      return media::goes_on_like_pnm(file);
    default:
      return true;
  }
}

Result<Image> decode_image(std::span<const std::byte> bytes, const DecodeLimits& limits) try {
  return media::decode({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, limits);
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "decode_image: no host memory for the pixels"};
}

Status decode_rows(std::span<const std::byte> bytes, const DecodeLimits& limits,
                   RowSink& sink) try {
  const media::Bytes file(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (media::format_of(file) == media::Format::kJpeg) return media::decode_jpeg(file, limits, sink);
  VLR_ASSIGN_OR_RETURN(const Image image, media::decode(file, limits));
  return put_image(image, sink);
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "decode_rows: no host memory for the pixels"};
}

Status ImageSink::start(int64_t width, int64_t height) {
  image_ = media::make_image(width, height);
  left_ = image_.rgb;
  return {};
}

void ImageSink::put(int64_t num_rows) {
  left_ = left_.subspan(static_cast<size_t>(3 * num_rows * image_.width));
}

Status put_image(const Image& image, RowSink& sink) {
  VLR_RETURN_IF_ERROR(sink.start(image.width, image.height));
  const auto row = static_cast<size_t>(3 * image.width);
  for (std::span<const uint8_t> left(image.rgb); !left.empty();) {
    const std::span<uint8_t> buffer = sink.buffer();
    const size_t bytes = std::min(left.size(), buffer.size() / row * row);
    std::copy_n(left.begin(), bytes, buffer.begin());
    sink.put(static_cast<int64_t>(bytes / row));
    left = left.subspan(bytes);
  }
  return {};
}

}  // namespace vlr
