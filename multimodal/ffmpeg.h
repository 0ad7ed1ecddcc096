/// What every use of FFmpeg here shares: owners of its objects, files in memory, silence.
/// Only for builds with FFmpeg.
#ifndef VLR_MULTIMODAL_FFMPEG_H_
#define VLR_MULTIMODAL_FFMPEG_H_

#ifdef VLR_WITH_FFMPEG
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

namespace vlr::media {

template <class T, void (*kFree)(T**)>
struct Free {
  void operator()(T* p) const { kFree(&p); }
};
using Frame = std::unique_ptr<AVFrame, Free<AVFrame, av_frame_free>>;
using Packet = std::unique_ptr<AVPacket, Free<AVPacket, av_packet_free>>;
using Codec = std::unique_ptr<AVCodecContext, Free<AVCodecContext, avcodec_free_context>>;
using Demuxer = std::unique_ptr<AVFormatContext, Free<AVFormatContext, avformat_close_input>>;
using Dictionary = std::unique_ptr<AVDictionary, Free<AVDictionary, av_dict_free>>;
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

/// FFmpeg prints to stderr unless told not to, and only a level of the whole process stops all of
/// it. A host that has chosen a level keeps it.
inline void silence_ffmpeg() {
  if (av_log_get_level() == AV_LOG_INFO) av_log_set_level(AV_LOG_QUIET);
}

inline std::string av_text(int error) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  av_strerror(error, text, sizeof text);
  return text;
}

/// A file in memory and the place where FFmpeg reads next.
struct Cursor {
  std::span<const uint8_t> bytes;
  int64_t position = 0;
};

inline int read_io(void* opaque, uint8_t* out, int size) {
  auto* c = static_cast<Cursor*>(opaque);
  const int64_t count =
      std::min<int64_t>(size, static_cast<int64_t>(c->bytes.size()) - c->position);
  if (count <= 0) return AVERROR_EOF;
  std::memcpy(out, c->bytes.data() + c->position, static_cast<size_t>(count));
  c->position += count;
  return static_cast<int>(count);
}

inline int64_t seek_io(void* opaque, int64_t offset, int whence) {
  auto* c = static_cast<Cursor*>(opaque);
  const auto size = static_cast<int64_t>(c->bytes.size());
  if (whence & AVSEEK_SIZE) return size;
  const int64_t base = (whence & 3) == SEEK_CUR ? c->position : (whence & 3) == SEEK_END ? size : 0;
  if (offset < -base || offset > size - base) return AVERROR(EINVAL);
  return c->position = base + offset;
}

/// Reads through `cursor`, which must outlive it. Null: no memory.
inline Io open_memory(Cursor* cursor) {
  constexpr int kBuffer = 1 << 15;
  auto* buffer = static_cast<uint8_t*>(av_malloc(kBuffer));
  if (!buffer) return nullptr;
  Io io(avio_alloc_context(buffer, kBuffer, 0, cursor, read_io, nullptr, seek_io));
  if (!io) av_free(buffer);
  return io;
}

/// FFmpeg copies what the file says into fields of enum types, values that the enum lacks included.
template <class Enum>
int number(const Enum& field) {
  static_assert(sizeof(Enum) == sizeof(int));
  int value;
  std::memcpy(&value, &field, sizeof value);
  return value;
}

}  // namespace vlr::media
#endif  // VLR_WITH_FFMPEG

#endif  // VLR_MULTIMODAL_FFMPEG_H_
