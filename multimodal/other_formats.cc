// TIFF, AVIF, JPEG 2000 and PNM through FFmpeg: one demuxer at most and one decoder, both named
// here, so that a file cannot pick any of FFmpeg's hundreds.
#include "multimodal/decoders.h"

#include <fmt/format.h>

#include "multimodal/avif.h"
#include "multimodal/exif.h"

#ifdef VLR_WITH_FFMPEG
#include <cctype>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "multimodal/ffmpeg.h"
#endif

namespace vlr::media {
namespace {

constexpr std::string_view name_of(OtherFormat format) {
  switch (format) {
    case OtherFormat::kTiff:
      return "tiff";
    case OtherFormat::kAvif:
      return "avif";
    case OtherFormat::kJpeg2000:
      return "jpeg2000";
    case OtherFormat::kPnm:
      return "pnm";
  }
  return "image";
}

#ifdef VLR_WITH_FFMPEG

Status no_memory(OtherFormat format) {
  return {Code::kOutOfMemory, fmt::format("{}: no host memory for FFmpeg", name_of(format))};
}

Status av_failed(OtherFormat format, std::string_view step, int error) {
  const Code code = error == AVERROR(ENOMEM)        ? Code::kOutOfMemory
                    : error == AVERROR_PATCHWELCOME ? Code::kUnimplemented
                                                    : Code::kDataLoss;
  return {code, fmt::format("{}: {}: {}", name_of(format), step, av_text(error))};
}

Result<Codec> open_codec(OtherFormat format, AVCodecID id, int64_t max_pixels) {
  const AVCodec* codec = avcodec_find_decoder(id);
  if (!codec) {
    return {Code::kUnimplemented,
            fmt::format("{}: this FFmpeg has no decoder for it", name_of(format))};
  }
  Codec context(avcodec_alloc_context3(codec));
  if (!context) return no_memory(format);
  context->thread_count = 1;
  context->max_pixels = max_pixels;
  // Damaged data are an error, not something to conceal. Not for TIFF, where it makes unknown tags
  // an error.
  if (id != AV_CODEC_ID_TIFF) context->err_recognition = AV_EF_EXPLODE;
  const int error = avcodec_open2(context.get(), codec, nullptr);
  if (error < 0) return av_failed(format, "decoder", error);
  return context;
}

Result<Frame> decode_packet(OtherFormat format, AVCodecContext* codec, const AVPacket* packet) {
  Frame frame(av_frame_alloc());
  if (!frame) return no_memory(format);
  int error = avcodec_send_packet(codec, packet);
  if (error >= 0) error = avcodec_send_packet(codec, nullptr);
  if (error >= 0) error = avcodec_receive_frame(codec, frame.get());
  if (error < 0) return av_failed(format, "damaged or truncated", error);
  return frame;
}

// The whole file is one packet.
Result<Frame> decode_bare(OtherFormat format, AVCodecID id, Bytes bytes, int64_t max_pixels) {
  if (bytes.empty())
    return {Code::kDataLoss, fmt::format("{}: a picture of no bytes", name_of(format))};
  VLR_ASSIGN_OR_RETURN(Codec codec, open_codec(format, id, max_pixels));
  Packet packet(av_packet_alloc());
  if (!packet || bytes.size() > INT32_MAX - AV_INPUT_BUFFER_PADDING_SIZE ||
      av_new_packet(packet.get(), static_cast<int>(bytes.size())) < 0) {
    return no_memory(format);
  }
  std::memcpy(packet->data, bytes.data(), bytes.size());
  return decode_packet(format, codec.get(), packet.get());
}

// Grey, with or without alpha, which is dropped.
Image grey_to_rgb(const AVFrame& frame, const AVComponentDescriptor& grey, bool big_endian) {
  Image image = make_image(frame.width, frame.height);
  uint8_t* rgb = image.rgb.data();
  for (int y = 0; y < frame.height; ++y) {
    const uint8_t* in = frame.data[0] + int64_t{y} * frame.linesize[0] + grey.offset;
    for (int x = 0; x < frame.width; ++x, in += grey.step, rgb += 3) {
      const uint8_t value =
          grey.depth == 8 ? in[0]
                          : grey16_to_8(static_cast<uint32_t>(big_endian ? in[0] << 8 | in[1]
                                                                         : in[1] << 8 | in[0]));
      std::fill_n(rgb, 3, value);
    }
  }
  return image;
}

// Planes of YUV, as libavif turns them into RGB: chroma samples lie between pixels and are
// interpolated linearly; sums in floating point. (swscale is off by dozens of levels where colours
// change.)
Image yuv_to_rgb(OtherFormat format, const AVFrame& frame, const AVPixFmtDescriptor& pixels) {
  struct Weights {
    float red, blue;
  };
  const auto [kr, kb] = [&]() -> Weights {
    switch (number(frame.colorspace)) {
      case AVCOL_SPC_BT709:
        return {0.2126f, 0.0722f};
      case AVCOL_SPC_FCC:
        return {0.30f, 0.11f};
      case AVCOL_SPC_SMPTE240M:
        return {0.212f, 0.087f};
      case AVCOL_SPC_BT2020_NCL:
        return {0.2627f, 0.0593f};
      default:
        return {0.299f, 0.114f};  // BT.601
    }
  }();
  const int depth = pixels.comp[0].depth;
  // JPEG 2000 says nothing about its range and knows only one.
  const bool full =
      number(frame.color_range) == AVCOL_RANGE_JPEG || format == OtherFormat::kJpeg2000;
  const auto step = static_cast<float>(1 << (depth - 8));
  const auto top = static_cast<float>((1 << depth) - 1), half = 128 * step;
  const float black = full ? 0 : 16 * step, luma = full ? top : 219 * step,
              chroma = full ? top : 224 * step;
  const auto sample = [&](int plane, int64_t y, int64_t x) {
    const uint8_t* row = frame.data[plane] + y * frame.linesize[plane];
    if (depth == 8) return static_cast<float>(row[x]);
    uint16_t v;
    std::memcpy(&v, row + 2 * x, sizeof v);
    return static_cast<float>(v);
  };
  // Along an axis with half as many chroma samples: the near one counts 3/4, the next one to it
  // 1/4.
  struct Taps {
    int64_t near, next;
    float weight;  // of the near one
  };
  const auto taps = [](int64_t at, int shift, int64_t size) -> Taps {
    if (shift == 0) return {at, at, 1};
    const int64_t last = ((size + 1) >> 1) - 1, near = at >> 1;
    return {near, std::clamp<int64_t>(at % 2 == 0 ? near - 1 : near + 1, 0, last), 0.75f};
  };

  Image image = make_image(frame.width, frame.height);
  uint8_t* rgb = image.rgb.data();
  for (int64_t y = 0; y < frame.height; ++y) {
    const Taps v = taps(y, pixels.log2_chroma_h, frame.height);
    for (int64_t x = 0; x < frame.width; ++x) {
      Taps h = taps(x, pixels.log2_chroma_w, frame.width);
      if (x == frame.width - 1) h.weight = 1;  // libyuv's way with a last column of its own
      const auto color = [&](int plane) {
        const auto row = [&](int64_t at) {
          return h.weight * sample(plane, at, h.near) + (1 - h.weight) * sample(plane, at, h.next);
        };
        return (v.weight * row(v.near) + (1 - v.weight) * row(v.next) - half) / chroma;
      };
      const float light = (sample(0, y, x) - black) / luma, cb = color(1), cr = color(2);
      const float r = light + 2 * (1 - kr) * cr, b = light + 2 * (1 - kb) * cb;
      const float g = (light - kr * r - kb * b) / (1 - kr - kb);
      for (const float value : {r, g, b})
        *rgb++ = static_cast<uint8_t>(255 * std::clamp(value, 0.0f, 1.0f) + 0.5f);
    }
  }
  return image;
}

Result<Scaler> make_scaler(OtherFormat format, const AVFrame& frame, AVPixelFormat target) {
  Scaler scaler(sws_alloc_context());
  if (!scaler) return no_memory(format);
  const std::pair<const char*, int> kOptions[] = {
      {"srcw", frame.width},
      {"srch", frame.height},
      {"src_format", frame.format},
      {"dstw", frame.width},
      {"dsth", frame.height},
      {"dst_format", target},
      {"sws_flags", SWS_BILINEAR | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND}};
  for (const auto& [option, value] : kOptions) av_opt_set_int(scaler.get(), option, value, 0);
  if (sws_init_context(scaler.get(), nullptr, nullptr) < 0) {
    return {Code::kUnimplemented,
            fmt::format("{}: pixels of format {}", name_of(format),
                        av_get_pix_fmt_name(static_cast<AVPixelFormat>(frame.format)))};
  }
  return scaler;
}

// What the fourth value of a pixel means.
enum class Alpha { kOpacity, kPremultiplied, kNothing };

// Pillow's way from colours that were multiplied by their opacity to ones that were not.
uint32_t unmultiplied(uint32_t value, uint32_t alpha) {
  return alpha == 0 ? value : std::min(255 * value / alpha, 255u);
}

Result<Image> to_rgb(OtherFormat format, const AVFrame& frame, const DecodeLimits& limits,
                     Alpha meaning = Alpha::kOpacity) {
  VLR_RETURN_IF_ERROR(check_size(name_of(format), frame.width, frame.height, limits));
  const AVPixFmtDescriptor* pixels = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(frame.format));
  if (!pixels)
    return {Code::kInternal, fmt::format("{}: FFmpeg names no pixel format", name_of(format))};
  const bool palette = pixels->flags & AV_PIX_FMT_FLAG_PAL;
  const AVComponentDescriptor& grey = pixels->comp[0];
  if (!palette && pixels->nb_components <= 2 && (grey.depth == 8 || grey.depth == 16)) {
    return grey_to_rgb(frame, grey, pixels->flags & AV_PIX_FMT_FLAG_BE);
  }
  const bool planes_of_yuv =
      pixels->nb_components == 3 && (pixels->flags & AV_PIX_FMT_FLAG_PLANAR) &&
      !(pixels->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_BE)) && pixels->log2_chroma_w <= 1 &&
      pixels->log2_chroma_h <= 1 && pixels->comp[2].plane == 2;
  if (planes_of_yuv) {
    constexpr int kMatrices[] = {AVCOL_SPC_UNSPECIFIED, AVCOL_SPC_BT709,     AVCOL_SPC_FCC,
                                 AVCOL_SPC_BT470BG,     AVCOL_SPC_SMPTE170M, AVCOL_SPC_SMPTE240M,
                                 AVCOL_SPC_BT2020_NCL};
    if (const int matrix = number(frame.colorspace); std::ranges::count(kMatrices, matrix) == 0) {
      return {Code::kUnimplemented,
              fmt::format("{}: YUV with colour matrix {} of H.273", name_of(format), matrix)};
    }
    return yuv_to_rgb(format, frame, *pixels);
  }
  const bool alpha = (pixels->flags & AV_PIX_FMT_FLAG_ALPHA) && !palette;
  const AVPixelFormat target = alpha ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24;
  VLR_ASSIGN_OR_RETURN(const Scaler scaler, make_scaler(format, frame, target));
  // Rows padded to 64 bytes and a margin behind them: swscale writes whole vectors.
  const int64_t stride = (frame.width * int64_t{alpha ? 4 : 3} + 63) / 64 * 64;
  std::vector<uint8_t> rows(static_cast<size_t>(stride * frame.height + 64));
  uint8_t* const planes[4] = {rows.data(), nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(stride), 0, 0, 0};
  if (stride > INT32_MAX || sws_scale(scaler.get(), frame.data, frame.linesize, 0, frame.height,
                                      planes, strides) != frame.height) {
    return {Code::kInternal, fmt::format("{}: swscale stopped early", name_of(format))};
  }
  Image image = make_image(frame.width, frame.height);
  uint8_t* rgb = image.rgb.data();
  for (int64_t y = 0; y < frame.height; ++y) {
    const uint8_t* in = rows.data() + y * stride;
    if (!alpha) {
      rgb = std::copy_n(in, 3 * frame.width, rgb);
      continue;
    }
    for (int64_t x = 0; x < frame.width; ++x, in += 4, rgb += 3) {
      for (int c = 0; c < 3; ++c) {
        const uint32_t value =
            meaning == Alpha::kPremultiplied ? unmultiplied(in[c], in[3]) : in[c];
        rgb[c] = over_white(value, meaning == Alpha::kNothing ? 255 : in[3]);
      }
    }
  }
  return image;
}

struct DeclaredSize {
  int64_t width = 0, height = 0;
  int64_t bytes_per_pixel = 0;  // all that is in memory at once, RGB and FFmpeg's own included
};

// Sides as the file's header says them, or nothing where it is not plain: for a clear message
// before FFmpeg, which has the same limit, starts.
std::optional<DeclaredSize> declared_size(OtherFormat format, Bytes bytes) {
  const auto number = [&](size_t at) -> int64_t {  // big-endian
    if (at > bytes.size() || bytes.size() - at < 4) return 0;
    return int64_t{bytes[at]} << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
  };
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  switch (format) {
    case OtherFormat::kTiff: {
      const auto width = tiff_tag(bytes, 256), height = tiff_tag(bytes, 257);
      if (!width || !height) return std::nullopt;
      const int64_t samples = tiff_tag(bytes, 277).value_or(1);
      const int64_t stored = tiff_tag(bytes, 258).value_or(1) > 8 ? 2 * samples : samples;
      return DeclaredSize{*width, *height, stored + (samples > 2 ? 4 : 0) + 3};
    }
    case OtherFormat::kAvif: {
      const Result<AvifItems> items = read_avif(bytes);
      if (!items || items->width == 0) return std::nullopt;
      // YUV of 4:4:4 in 8 bits; then the picture, its transparency, and what that decodes to.
      return DeclaredSize{items->width, items->height, items->alpha.empty() ? 6 : 9};
    }
    case OtherFormat::kJpeg2000: {  // marker SIZ: its length, capabilities, the grid, its origin
      const size_t at = text.find("\xff\x4f\xff\x51");
      if (at == text.npos) return std::nullopt;
      // Coefficients of 32 bits, samples of 8, rows of swscale's, RGB.
      const int64_t samples = at + 41 < bytes.size() ? std::max<int64_t>(bytes[at + 41], 1) : 1;
      return DeclaredSize{number(at + 8) - number(at + 16), number(at + 12) - number(at + 20),
                          5 * samples + (samples > 2 ? 4 : 0) + 3};
    }
    case OtherFormat::kPnm: {
      int64_t sides[2] = {};
      size_t at = 2;
      for (int64_t& side : sides) {
        for (bool comment = false;
             at < bytes.size() && (comment || bytes[at] == '#' || std::isspace(bytes[at])); ++at)
          comment = bytes[at] != '\n' && (comment || bytes[at] == '#');
        for (; at < bytes.size() && std::isdigit(bytes[at]); ++at)
          side = std::min<int64_t>(10 * side + (bytes[at] - '0'), INT32_MAX);
      }
      return DeclaredSize{sides[0], sides[1], 3 + 3 + 3};
    }
  }
  return std::nullopt;
}

Result<Image> decode_tiff(Bytes bytes, const DecodeLimits& limits, int64_t max_pixels) {
  constexpr uint32_t kBitsPerSample = 258, kCompression = 259, kPhotometric = 262,
                     kOrientation = 274, kSamplesPerPixel = 277, kExtraSamples = 338,
                     kSampleFormat = 339;
  const auto tag = [&](uint32_t number, uint32_t otherwise) {
    return tiff_tag(bytes, number).value_or(otherwise);
  };
  // FFmpeg fails at some of these and gives wrong colours for others.
  constexpr uint32_t kOldJpeg = 6, kJpeg = 7, kPaletteColor = 3, kYcbcr = 6, kUnsigned = 1;
  const uint32_t compression = tag(kCompression, 1), colors = tag(kPhotometric, 0),
                 bits = tag(kBitsPerSample, 1);
  if (compression == kOldJpeg || compression == kJpeg)
    return {Code::kUnimplemented, "tiff: JPEG inside TIFF"};
  if (colors >= kYcbcr)
    return {Code::kUnimplemented, fmt::format("tiff: colours of kind {}", colors)};
  if (colors == kPaletteColor && tag(kSamplesPerPixel, 1) > 1)
    return {Code::kUnimplemented, "tiff: a palette with transparency"};
  if (bits > 16 || tag(kSampleFormat, kUnsigned) != kUnsigned) {
    return {Code::kUnimplemented,
            fmt::format("tiff: samples of {} bits and kind {}, expected unsigned ones of up to 16",
                        bits, tag(kSampleFormat, kUnsigned))};
  }
  const uint32_t extra = tag(kExtraSamples, 2);
  const Alpha alpha = extra == 0   ? Alpha::kNothing
                      : extra == 1 ? Alpha::kPremultiplied
                                   : Alpha::kOpacity;
  VLR_ASSIGN_OR_RETURN(const Frame frame,
                       decode_bare(OtherFormat::kTiff, AV_CODEC_ID_TIFF, bytes, max_pixels));
  VLR_ASSIGN_OR_RETURN(Image image, to_rgb(OtherFormat::kTiff, *frame, limits, alpha));
  // FFmpeg does not follow the orientation, Pillow does whenever it decodes a TIFF.
  return oriented(std::move(image), static_cast<int>(std::min(tag(kOrientation, 1), 9u)));
}

Result<Image> decode_avif(Bytes bytes, const DecodeLimits& limits, int64_t max_pixels) {
  VLR_ASSIGN_OR_RETURN(const AvifItems items, read_avif(bytes));
  const auto decode = [&](Bytes av1) {
    return decode_bare(OtherFormat::kAvif, AV_CODEC_ID_AV1, av1, max_pixels);
  };
  VLR_ASSIGN_OR_RETURN(const Frame frame, decode(items.color));
  if (items.colors) {
    frame->colorspace = static_cast<AVColorSpace>(items.colors->matrix);
    frame->color_range = items.colors->full_range ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
  }
  VLR_ASSIGN_OR_RETURN(Image image, to_rgb(OtherFormat::kAvif, *frame, limits));
  if (items.alpha.empty()) return image;

  VLR_ASSIGN_OR_RETURN(const Frame alpha, decode(items.alpha));
  if (alpha->width != frame->width || alpha->height != frame->height) {
    return {Code::kUnimplemented,
            fmt::format("avif: transparency of {}x{} pixels in a picture of {}x{}", alpha->width,
                        alpha->height, image.width, image.height)};
  }
  VLR_ASSIGN_OR_RETURN(const Image opacity, to_rgb(OtherFormat::kAvif, *alpha, limits));
  for (size_t i = 0; i < image.rgb.size(); ++i) {
    const uint32_t a = opacity.rgb[i], value = image.rgb[i];
    image.rgb[i] = over_white(items.premultiplied ? unmultiplied(value, a) : value, a);
  }
  return image;
}

#endif

}  // namespace

Result<Image> decode_other(OtherFormat format, Bytes bytes, const DecodeLimits& limits) {
#ifdef VLR_WITH_FFMPEG
  silence_ffmpeg();
  int64_t max_pixels = limits.max_pixels;
  if (const auto size = declared_size(format, bytes)) {
    VLR_RETURN_IF_ERROR(check_size(name_of(format), size->width, size->height, limits));
    VLR_RETURN_IF_ERROR(
        check_decode_bytes(name_of(format), size->width, size->height, size->bytes_per_pixel));
    // What FFmpeg allocates for that size, whose sides it rounds up before it checks them.
    const auto rounded_up = [](int64_t side) { return (side + 127) / 128 * 128; };
    max_pixels = rounded_up(size->width) * rounded_up(size->height);
  }
  const auto decode = [&](AVCodecID id) -> Result<Image> {
    VLR_ASSIGN_OR_RETURN(const Frame frame, decode_bare(format, id, bytes, max_pixels));
    return to_rgb(format, *frame, limits);
  };
  switch (format) {
    case OtherFormat::kTiff:
      return decode_tiff(bytes, limits, max_pixels);
    case OtherFormat::kAvif:
      return decode_avif(bytes, limits, max_pixels);
    case OtherFormat::kJpeg2000:
      return decode(AV_CODEC_ID_JPEG2000);
    case OtherFormat::kPnm: {
      constexpr AVCodecID kCodecs[] = {AV_CODEC_ID_PBM, AV_CODEC_ID_PGM, AV_CODEC_ID_PPM};
      return decode(kCodecs[(bytes[1] - '1') % 3]);
    }
  }
  return {Code::kInternal, "decode_other: unknown format"};
#else
  (void)bytes, (void)limits;
  return {Code::kUnimplemented,
          fmt::format("{}: only builds with VLR_WITH_FFMPEG decode it", name_of(format))};
#endif
}

}  // namespace vlr::media
