// TIFF, AVIF, JPEG 2000 and PNM through FFmpeg: one demuxer at most and one decoder, both named here, so
// that a file cannot pick any of FFmpeg's hundreds.
#include "multimodal/decoders.h"

#include <fmt/format.h>

#ifdef VLR_WITH_FFMPEG
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <cstring>
#include <memory>
#include <string>
#endif

namespace vlr::media {
namespace {

constexpr std::string_view name_of(OtherFormat format) {
  switch (format) {
    case OtherFormat::kTiff: return "tiff";
    case OtherFormat::kAvif: return "avif";
    case OtherFormat::kJpeg2000: return "jpeg2000";
    case OtherFormat::kPnm: return "pnm";
  }
  return "image";
}

#ifdef VLR_WITH_FFMPEG

template <class T, void (*kFree)(T**)>
struct Free {
  void operator()(T* p) const { kFree(&p); }
};
using Frame = std::unique_ptr<AVFrame, Free<AVFrame, av_frame_free>>;
using Packet = std::unique_ptr<AVPacket, Free<AVPacket, av_packet_free>>;
using Codec = std::unique_ptr<AVCodecContext, Free<AVCodecContext, avcodec_free_context>>;
using Demuxer = std::unique_ptr<AVFormatContext, Free<AVFormatContext, avformat_close_input>>;
struct FreeIo {
  void operator()(AVIOContext* io) const {
    av_freep(&io->buffer);
    avio_context_free(&io);
  }
};
using Io = std::unique_ptr<AVIOContext, FreeIo>;
struct FreeScaler {
  void operator()(SwsContext* s) const { sws_freeContext(s); }
};
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

Status no_memory(OtherFormat format) {
  return {Code::kOutOfMemory, fmt::format("{}: no host memory for FFmpeg", name_of(format))};
}

Status av_failed(OtherFormat format, std::string_view step, int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(error, text, sizeof text);
  const Code code = error == AVERROR(ENOMEM)      ? Code::kOutOfMemory
                    : error == AVERROR_PATCHWELCOME ? Code::kUnimplemented
                                                  : Code::kDataLoss;
  return {code, fmt::format("{}: {}: {}", name_of(format), step, text)};
}

Result<Codec> open_codec(OtherFormat format, AVCodecID id, const AVCodecParameters* parameters,
                         const DecodeLimits& limits) {
  const AVCodec* codec = avcodec_find_decoder(id);
  if (!codec) {
    return {Code::kUnimplemented, fmt::format("{}: this FFmpeg has no decoder for it", name_of(format))};
  }
  Codec context(avcodec_alloc_context3(codec));
  if (!context) return no_memory(format);
  if (parameters) {
    const int error = avcodec_parameters_to_context(context.get(), parameters);
    if (error < 0) return av_failed(format, "stream", error);
  }
  context->thread_count = 1;
  context->max_pixels = limits.max_pixels;
  // Damaged data are an error, not something to conceal. Not for TIFF, where it makes unknown tags an error.
  if (id != AV_CODEC_ID_TIFF) context->err_recognition = AV_EF_EXPLODE;
  context->log_level_offset = AV_LOG_TRACE;  // below every level that is printed: messages go into Status
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
Result<Frame> decode_bare(OtherFormat format, AVCodecID id, Bytes bytes, const DecodeLimits& limits) {
  VLR_ASSIGN_OR_RETURN(Codec codec, open_codec(format, id, nullptr, limits));
  Packet packet(av_packet_alloc());
  if (!packet || bytes.size() > INT32_MAX - AV_INPUT_BUFFER_PADDING_SIZE ||
      av_new_packet(packet.get(), static_cast<int>(bytes.size())) < 0) {
    return no_memory(format);
  }
  std::memcpy(packet->data, bytes.data(), bytes.size());
  return decode_packet(format, codec.get(), packet.get());
}

struct Cursor {
  Bytes bytes;
  int64_t position = 0;
};

int read_io(void* opaque, uint8_t* out, int size) {
  auto* c = static_cast<Cursor*>(opaque);
  const int64_t count = std::min<int64_t>(size, static_cast<int64_t>(c->bytes.size()) - c->position);
  if (count <= 0) return AVERROR_EOF;
  std::memcpy(out, c->bytes.data() + c->position, static_cast<size_t>(count));
  c->position += count;
  return static_cast<int>(count);
}

int64_t seek_io(void* opaque, int64_t offset, int whence) {
  auto* c = static_cast<Cursor*>(opaque);
  const auto size = static_cast<int64_t>(c->bytes.size());
  if (whence & AVSEEK_SIZE) return size;
  const int64_t base = (whence & 3) == SEEK_CUR ? c->position : (whence & 3) == SEEK_END ? size : 0;
  if (offset < -base || offset > size - base) return AVERROR(EINVAL);
  return c->position = base + offset;
}

// The first picture of an ISO container.
Result<Frame> decode_isobmff(OtherFormat format, Bytes bytes, const DecodeLimits& limits) {
  Cursor cursor{bytes};
  constexpr int kBuffer = 1 << 15;
  auto* buffer = static_cast<uint8_t*>(av_malloc(kBuffer));
  if (!buffer) return no_memory(format);
  Io io(avio_alloc_context(buffer, kBuffer, 0, &cursor, read_io, nullptr, seek_io));
  if (!io) {
    av_free(buffer);
    return no_memory(format);
  }
  AVFormatContext* opening = avformat_alloc_context();
  if (!opening) return no_memory(format);
  opening->pb = io.get();
  int error = avformat_open_input(&opening, nullptr, av_find_input_format("mov"), nullptr);
  if (error < 0) return av_failed(format, "container", error);  // which freed it
  Demuxer demuxer(opening);
  Packet packet(av_packet_alloc());
  if (!packet) return no_memory(format);
  for (;;) {
    error = av_read_frame(demuxer.get(), packet.get());
    if (error < 0) return av_failed(format, "no picture in the container", error);
    const AVCodecParameters* stream = demuxer->streams[packet->stream_index]->codecpar;
    if (stream->codec_type == AVMEDIA_TYPE_VIDEO) {
      if (stream->codec_id != AV_CODEC_ID_AV1) {
        return {Code::kUnimplemented, fmt::format("{}: a picture coded as {}, expected av1", name_of(format),
                                                  avcodec_get_name(stream->codec_id))};
      }
      VLR_ASSIGN_OR_RETURN(Codec codec, open_codec(format, AV_CODEC_ID_AV1, stream, limits));
      return decode_packet(format, codec.get(), packet.get());
    }
    av_packet_unref(packet.get());
  }
}

// A frame in a pixel format of 8 bits a value: RGB24, RGBA, GRAY8, or GRAY16 for saturation.
Result<Image> to_rgb(OtherFormat format, const AVFrame& frame, const DecodeLimits& limits) {
  VLR_RETURN_IF_ERROR(check_size(name_of(format), frame.width, frame.height, limits));
  const auto source = static_cast<AVPixelFormat>(frame.format);
  const AVPixFmtDescriptor* description = av_pix_fmt_desc_get(source);
  if (!description) return {Code::kInternal, fmt::format("{}: FFmpeg names no pixel format", name_of(format))};
  const bool has_color = description->nb_components >= 3 || (description->flags & AV_PIX_FMT_FLAG_PAL);
  const bool deep_grey = !has_color && description->comp[0].depth > 8;
  const bool has_alpha = has_color && (description->flags & AV_PIX_FMT_FLAG_ALPHA) &&
                         !(description->flags & AV_PIX_FMT_FLAG_PAL);  // grey and alpha: dropped
  const AVPixelFormat target = deep_grey ? AV_PIX_FMT_GRAY16LE : has_alpha ? AV_PIX_FMT_RGBA : AV_PIX_FMT_RGB24;
  const int64_t pixel_bytes = deep_grey ? 2 : has_alpha ? 4 : 3;

  Scaler scaler(sws_getContext(frame.width, frame.height, source, frame.width, frame.height, target,
                               SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_ACCURATE_RND, nullptr,
                               nullptr, nullptr));
  if (!scaler) {
    return {Code::kUnimplemented,
            fmt::format("{}: pixels of format {}", name_of(format), description->name)};
  }
  const int* matrix = sws_getCoefficients(frame.colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_ITU601
                                                                                   : static_cast<int>(frame.colorspace));
  sws_setColorspaceDetails(scaler.get(), matrix, frame.color_range == AVCOL_RANGE_JPEG ? 1 : 0, matrix, 1, 0,
                           1 << 16, 1 << 16);
  // Rows padded to 64 bytes and a margin behind them: swscale writes whole vectors.
  const int64_t stride = (frame.width * pixel_bytes + 63) / 64 * 64;
  std::vector<uint8_t> pixels(static_cast<size_t>(stride * frame.height + 64));
  uint8_t* planes[4] = {pixels.data(), nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(stride), 0, 0, 0};
  if (stride > INT32_MAX || sws_scale(scaler.get(), frame.data, frame.linesize, 0, frame.height, planes, strides) !=
                                frame.height) {
    return {Code::kInternal, fmt::format("{}: swscale stopped early", name_of(format))};
  }

  Image image = make_image(frame.width, frame.height);
  uint8_t* rgb = image.rgb.data();
  for (int64_t y = 0; y < frame.height; ++y) {
    const uint8_t* in = pixels.data() + y * stride;
    if (target == AV_PIX_FMT_RGB24) {
      rgb = std::copy_n(in, 3 * frame.width, rgb);
      continue;
    }
    for (int64_t x = 0; x < frame.width; ++x, in += pixel_bytes, rgb += 3) {
      for (int c = 0; c < 3; ++c) {
        rgb[c] = deep_grey ? grey16_to_8(static_cast<uint32_t>(in[0] | in[1] << 8)) : over_white(in[c], in[3]);
      }
    }
  }
  return image;
}

#endif

}  // namespace

Result<Image> decode_other(OtherFormat format, Bytes bytes, const DecodeLimits& limits) {
#ifdef VLR_WITH_FFMPEG
  const auto decode = [&]() -> Result<Frame> {
    switch (format) {
      case OtherFormat::kTiff: return decode_bare(format, AV_CODEC_ID_TIFF, bytes, limits);
      case OtherFormat::kJpeg2000: return decode_bare(format, AV_CODEC_ID_JPEG2000, bytes, limits);
      case OtherFormat::kPnm: {
        constexpr AVCodecID kCodecs[] = {AV_CODEC_ID_PBM, AV_CODEC_ID_PGM, AV_CODEC_ID_PPM};
        return decode_bare(format, kCodecs[(bytes[1] - '1') % 3], bytes, limits);
      }
      case OtherFormat::kAvif: return decode_isobmff(format, bytes, limits);
    }
    return {Code::kInternal, "decode_other: unknown format"};
  };
  VLR_ASSIGN_OR_RETURN(Frame frame, decode());
  return to_rgb(format, *frame, limits);
#else
  (void)bytes, (void)limits;
  return {Code::kUnimplemented,
          fmt::format("{}: only builds with VLR_WITH_FFMPEG decode it", name_of(format))};
#endif
}

}  // namespace vlr::media
