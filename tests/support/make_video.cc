#include "tests/support/make_video.h"

#include <fmt/format.h>

#include <utility>

#include "multimodal/decoders.h"
#include "multimodal/ffmpeg.h"
extern "C" {
#include <libavutil/channel_layout.h>
#include <libavutil/display.h>
}

#ifdef __SANITIZE_ADDRESS__
// The encoder leaks its parameters (x265 3.5).
extern "C" const char* __lsan_default_suppressions() { return "leak:libx265"; }
#endif

namespace vlr::test {
namespace {

using media::Codec;
using media::Frame;
using media::Packet;

struct FreeMuxer {
  void operator()(AVFormatContext* m) const { avformat_free_context(m); }
};
using Muxer = std::unique_ptr<AVFormatContext, FreeMuxer>;

// A file in memory that can be written anywhere. (FFmpeg's own would pad it where the muxer wrote
// last, in the middle.)
struct Sink {
  std::vector<std::byte> bytes;
  size_t position = 0;
};

#if LIBAVFORMAT_VERSION_MAJOR >= 61
int write_io(void* opaque, const uint8_t* data, int size) {
#else
int write_io(void* opaque, uint8_t* data, int size) {
#endif
  auto* sink = static_cast<Sink*>(opaque);
  const size_t end = sink->position + static_cast<size_t>(size);
  if (end > sink->bytes.size()) sink->bytes.resize(end);
  std::memcpy(sink->bytes.data() + sink->position, data, static_cast<size_t>(size));
  sink->position = end;
  return size;
}

int64_t seek_sink(void* opaque, int64_t offset, int whence) {
  auto* sink = static_cast<Sink*>(opaque);
  const auto size = static_cast<int64_t>(sink->bytes.size());
  if (whence & AVSEEK_SIZE) return size;
  const int64_t base = whence == SEEK_CUR   ? static_cast<int64_t>(sink->position)
                       : whence == SEEK_END ? size
                                            : 0;
  sink->position = static_cast<size_t>(base + offset);
  return base + offset;
}

Status check(int error, std::string_view step) {
  return error >= 0 ? Status()
                    : Status(Code::kInternal, fmt::format("{}: {}", step, media::av_text(error)));
}

Result<Codec> open_encoder(const VideoRecipe& r, const Image& first, bool global_header) {
  const AVCodec* codec = avcodec_find_encoder_by_name(r.encoder.c_str());
  if (!codec) return {Code::kUnimplemented, "no encoder " + r.encoder};
  Codec c(avcodec_alloc_context3(codec));
  c->width = static_cast<int>(first.width);
  c->height = static_cast<int>(first.height);
  c->pix_fmt = av_get_pix_fmt(r.pixels.c_str());
  c->time_base = {r.rate_den, r.rate_num};
  c->framerate = {r.rate_num, r.rate_den};
  c->gop_size = r.gop;
  c->max_b_frames = r.b_frames;
  c->thread_count = 1;
  c->flags |= AV_CODEC_FLAG_QSCALE;
  c->global_quality = 2 * FF_QP2LAMBDA;
  c->bit_rate = 2'000'000;
  c->strict_std_compliance = FF_COMPLIANCE_EXPERIMENTAL;
  if (global_header) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  AVDictionary* options = nullptr;
  av_dict_parse_string(&options, r.encoder_options.c_str(), "=", ":", 0);
  const int error = avcodec_open2(c.get(), codec, &options);
  const bool unknown = av_dict_count(options) > 0;
  av_dict_free(&options);
  VLR_RETURN_IF_ERROR(check(error, r.encoder));
  if (unknown) return {Code::kInternal, r.encoder + ": an option that it does not know"};
  return c;
}

Result<Frame> to_frame(const Image& image, const AVCodecContext& c) {
  Frame frame(av_frame_alloc());
  frame->width = static_cast<int>(image.width);
  frame->height = static_cast<int>(image.height);
  frame->format = c.pix_fmt;
  VLR_RETURN_IF_ERROR(check(av_frame_get_buffer(frame.get(), 0), "frame"));
  const media::Scaler scaler(sws_getContext(frame->width, frame->height, AV_PIX_FMT_RGB24,
                                            frame->width, frame->height, c.pix_fmt, SWS_POINT,
                                            nullptr, nullptr, nullptr));
  // swscale reads whole vectors.
  const int stride = (3 * frame->width + 63) / 64 * 64;
  std::vector<uint8_t> rows(static_cast<size_t>(stride * frame->height + 64));
  for (int y = 0; y < frame->height; ++y)
    std::copy_n(image.rgb.data() + y * 3 * frame->width, 3 * frame->width,
                rows.data() + y * stride);
  const uint8_t* const planes[1] = {rows.data()};
  sws_scale(scaler.get(), planes, &stride, 0, frame->height, frame->data, frame->linesize);
  return frame;
}

// Sends a frame, or the end, and writes what comes out.
Status encode(AVCodecContext* encoder, const AVFrame* frame, AVFormatContext* muxer,
              AVStream* stream) {
  VLR_RETURN_IF_ERROR(check(avcodec_send_frame(encoder, frame), "encoder"));
  for (;;) {
    Packet packet(av_packet_alloc());
    const int error = avcodec_receive_packet(encoder, packet.get());
    if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) return {};
    VLR_RETURN_IF_ERROR(check(error, "encoder"));
    packet->stream_index = stream->index;
    if (packet->duration == 0 && encoder->codec_type == AVMEDIA_TYPE_VIDEO) packet->duration = 1;
    av_packet_rescale_ts(packet.get(), encoder->time_base, stream->time_base);
    VLR_RETURN_IF_ERROR(check(av_interleaved_write_frame(muxer, packet.get()), "muxer"));
  }
}

Result<Codec> open_audio(AVFormatContext* muxer, AVStream** stream, bool global_header) {
  const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_AAC);
  if (!codec) return {Code::kUnimplemented, "no encoder of aac"};
  Codec c(avcodec_alloc_context3(codec));
  c->sample_fmt = AV_SAMPLE_FMT_FLTP;
  c->sample_rate = 44100;
  av_channel_layout_default(&c->ch_layout, 1);
  c->time_base = {1, 44100};
  if (global_header) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  VLR_RETURN_IF_ERROR(check(avcodec_open2(c.get(), codec, nullptr), "aac"));
  *stream = avformat_new_stream(muxer, nullptr);
  avcodec_parameters_from_context((*stream)->codecpar, c.get());
  (*stream)->time_base = c->time_base;
  return c;
}

Status encode_silence(AVCodecContext* encoder, AVFormatContext* muxer, AVStream* stream) {
  for (int i = 0; i < 20; ++i) {
    Frame frame(av_frame_alloc());
    frame->nb_samples = encoder->frame_size;
    frame->format = encoder->sample_fmt;
    frame->sample_rate = encoder->sample_rate;
    av_channel_layout_copy(&frame->ch_layout, &encoder->ch_layout);
    VLR_RETURN_IF_ERROR(check(av_frame_get_buffer(frame.get(), 0), "frame"));
    std::memset(frame->data[0], 0, sizeof(float) * static_cast<size_t>(frame->nb_samples));
    frame->pts = i * frame->nb_samples;
    VLR_RETURN_IF_ERROR(encode(encoder, frame.get(), muxer, stream));
  }
  return encode(encoder, nullptr, muxer, stream);
}

void set_rotation(AVStream* stream, int degrees) {
  auto* matrix = reinterpret_cast<int32_t*>(
      av_stream_new_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t)));
  av_display_rotation_set(matrix, degrees);
}

// A picture that is not a video: one packet of png in a stream of its own.
Result<AVStream*> add_cover(AVFormatContext* muxer, Packet& packet) {
  VideoRecipe r;
  r.encoder = "png";
  r.pixels = "rgb24";
  const Image image = numbered_frame(1);
  VLR_ASSIGN_OR_RETURN(const Codec encoder, open_encoder(r, image, false));
  VLR_ASSIGN_OR_RETURN(const Frame frame, to_frame(image, *encoder));
  VLR_RETURN_IF_ERROR(check(avcodec_send_frame(encoder.get(), frame.get()), "cover"));
  packet.reset(av_packet_alloc());
  VLR_RETURN_IF_ERROR(check(avcodec_receive_packet(encoder.get(), packet.get()), "cover"));
  AVStream* stream = avformat_new_stream(muxer, nullptr);
  avcodec_parameters_from_context(stream->codecpar, encoder.get());
  stream->disposition = AV_DISPOSITION_ATTACHED_PIC;
  packet->stream_index = stream->index;
  packet->flags |= AV_PKT_FLAG_KEY;
  return stream;
}

}  // namespace

Result<std::vector<std::byte>> make_video(const VideoRecipe& r, const std::vector<Image>& frames) {
  media::silence_ffmpeg();
  AVFormatContext* raw = nullptr;
  avformat_alloc_output_context2(&raw, nullptr, r.muxer.c_str(), nullptr);
  if (!raw) return {Code::kUnimplemented, "no muxer " + r.muxer};
  const Muxer muxer(raw);
  muxer->flags |= AVFMT_FLAG_BITEXACT;  // no version, no date
  const bool global_header = muxer->oformat->flags & AVFMT_GLOBALHEADER;
  AVStream *video = nullptr, *audio = nullptr;
  Codec encoder, audio_encoder;
  Packet cover;
  if (r.with_video) {
    VLR_ASSIGN_OR_RETURN(encoder, open_encoder(r, frames.front(), global_header));
    video = avformat_new_stream(muxer.get(), nullptr);
    avcodec_parameters_from_context(video->codecpar, encoder.get());
    video->time_base = encoder->time_base;
    video->avg_frame_rate = encoder->framerate;
    if (r.rotation != 0) set_rotation(video, r.rotation);
  }
  if (r.with_audio) {
    VLR_ASSIGN_OR_RETURN(audio_encoder, open_audio(muxer.get(), &audio, global_header));
  }
  if (r.with_cover) {
    VLR_RETURN_IF_ERROR(add_cover(muxer.get(), cover).error());
  }

  Sink sink;
  constexpr int kBuffer = 1 << 14;
  const media::Io io(avio_alloc_context(static_cast<uint8_t*>(av_malloc(kBuffer)), kBuffer, 1,
                                        &sink, nullptr, write_io, seek_sink));
  muxer->pb = io.get();
  AVDictionary* options = nullptr;
  av_dict_parse_string(&options, r.muxer_options.c_str(), "=", ":", 0);
  const int error = avformat_write_header(muxer.get(), &options);
  const bool unknown = av_dict_count(options) > 0;
  av_dict_free(&options);
  VLR_RETURN_IF_ERROR(check(error, r.muxer));
  if (unknown) return {Code::kInternal, r.muxer + ": an option that it does not know"};

  if (cover)
    VLR_RETURN_IF_ERROR(check(av_interleaved_write_frame(muxer.get(), cover.get()), "cover"));
  if (audio) VLR_RETURN_IF_ERROR(encode_silence(audio_encoder.get(), muxer.get(), audio));
  for (size_t i = 0; video && i < frames.size(); ++i) {
    const Image& image = frames[i];
    if (image.width != encoder->width || image.height != encoder->height) {
      VLR_RETURN_IF_ERROR(encode(encoder.get(), nullptr, muxer.get(), video));
      VLR_ASSIGN_OR_RETURN(encoder, open_encoder(r, image, global_header));
    }
    VLR_ASSIGN_OR_RETURN(const Frame frame, to_frame(image, *encoder));
    frame->pts = r.pts.empty() ? static_cast<int64_t>(i) : r.pts[i];
    VLR_RETURN_IF_ERROR(encode(encoder.get(), frame.get(), muxer.get(), video));
  }
  if (video) VLR_RETURN_IF_ERROR(encode(encoder.get(), nullptr, muxer.get(), video));
  VLR_RETURN_IF_ERROR(check(av_write_trailer(muxer.get()), "trailer"));

  avio_flush(io.get());
  return std::move(sink.bytes);
}

// Eight blocks along the top two rows hold the number's bits, four below a pattern that tells a
// number from noise.
constexpr int kBlock = 16, kBits = 8;

Image numbered_frame(int number, int64_t width, int64_t height) {
  Image image = media::make_image(width, height);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t block = y / kBlock * 4 + x / kBlock;
      const bool inside = x < 4 * kBlock && y < 3 * kBlock;
      const bool white = block < kBits ? number >> block & 1 : block % 2 == 0;
      std::fill_n(&image.rgb[static_cast<size_t>(3 * (y * width + x))], 3,
                  static_cast<uint8_t>(inside ? (white ? 255 : 0) : 128));
    }
  }
  return image;
}

int number_of(const Image& image) {
  const auto white = [&](int block) {
    const int64_t y = block / 4 * kBlock + kBlock / 2, x = block % 4 * kBlock + kBlock / 2;
    return image.rgb[static_cast<size_t>(3 * (y * image.width + x))] > 127;
  };
  int number = 0;
  for (int block = 0; block < kBits; ++block) number |= white(block) << block;
  for (int block = kBits; block < 12; ++block) {
    if (white(block) != (block % 2 == 0)) return -1;
  }
  return number;
}

std::vector<Image> numbered_frames(int count, int64_t width, int64_t height) {
  std::vector<Image> frames;
  for (int i = 0; i < count; ++i) frames.push_back(numbered_frame(i, width, height));
  return frames;
}

}  // namespace vlr::test
