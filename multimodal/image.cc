#include "multimodal/image.h"

#include <fmt/format.h>

#include <new>
#include <string>

#include "multimodal/decoders.h"

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
  return {};
}

Image make_image(int64_t width, int64_t height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
}

namespace {

std::string first_bytes(Bytes bytes) {
  std::string text;
  for (const uint8_t b : bytes.first(std::min<size_t>(bytes.size(), 8))) {
    if (b >= 0x20 && b < 0x7f)
      text += static_cast<char>(b);
    else
      text += fmt::format("\\x{:02x}", b);
  }
  return text;
}

enum class Format { kNone, kJpeg, kPng, kWebp, kGif, kBmp, kTiff, kAvif, kJpeg2000, kPnm };

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
  if (has("ftypavif"sv, 4) || has("ftypavis"sv, 4) || has("ftypmif1"sv, 4)) return Format::kAvif;
  if (has("\0\0\0\x0cjP  \r\n\x87\n"sv) || has("\xff\x4f\xff\x51"sv)) return Format::kJpeg2000;
  if (text.size() > 2 && text[0] == 'P' && text[1] >= '1' && text[1] <= '6' &&
      (text[2] == '\n' || text[2] == '\r' || text[2] == ' ' || text[2] == '\t')) {
    return Format::kPnm;
  }
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
      return decode_other(OtherFormat::kPnm, bytes, limits);
    case Format::kNone:
      break;
  }
  if (bytes.empty()) return {Code::kInvalidArgument, "not an image: no bytes at all"};
  return {Code::kInvalidArgument,
          fmt::format("not an image: starts with '{}'", first_bytes(bytes))};
}

}  // namespace
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
