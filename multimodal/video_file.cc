// What decord 0.6.0 does, which reads video files for the reference, and what is done here (its
// src/video/video_reader.cc and src/video/ffmpeg; equal pixels were verified on x86):
// - It counts the packets of av_find_best_stream()'s stream and sorts them by pts. So here, but
//   packets that never give a picture (edit lists, hidden frames, second fields, the part of a
//   group of pictures before the file's beginning) are not counted; decord counts them and then
//   repeats or shifts frames.
// - Its average rate is the stream's avg_frame_rate, which avformat_find_stream_info() estimates
//   where the file has none. So here; where that is missing too, decord divides by zero.
// - It turns frames by 90, 180 and 270 degrees as a `rotate` tag or the display matrix says,
//   mirrors none and ignores other angles. So here.
// - It converts with libavfilter's `scale` and no flags, which in its FFmpeg means SWS_BILINEAR,
//   matrix and range as the frame is tagged, BT.601 and limited range where it is not. Chroma of
//   8-bit 4:2:0 and 4:2:2 is thereby not interpolated. So here.
// - Frames of another size are scaled to the size of the stream. Here to that of the first frame.
// - Where decoding fails it repeats the last frame that came out. Here that is an error.
#include "multimodal/video_file.h"

#include <fmt/format.h>

#include "multimodal/file_kind.h"
#ifdef VLR_WITH_FFMPEG
extern "C" {
#include <libavutil/display.h>
}

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "multimodal/decoders.h"
#include "multimodal/ffmpeg.h"
#include "multimodal/video_container.h"
#endif

namespace vlr {

#ifdef VLR_WITH_FFMPEG

namespace {

using media::Codec;
using media::Container;
using media::Demuxer;
using media::Frame;
using media::Packet;

// Damaged data are an error, not something to conceal.
constexpr int kExplode = AV_EF_CRCCHECK | AV_EF_EXPLODE;

constexpr int64_t kNever = -1;  // the number of a frame that is not shown

// A coded picture, in the order of the file.
struct Coded {
  Packet packet;
  int64_t frame = kNever;  // its number in the order of showing
  bool key = false;
};

Status no_memory() { return {Code::kOutOfMemory, "video: no host memory for FFmpeg"}; }

int refuse_to_open(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EACCES);
}

// Clockwise, in [0, 360).
int rotation_of(const AVStream& stream) {
  double degrees = 0;
  if (const AVDictionaryEntry* tag = av_dict_get(stream.metadata, "rotate", nullptr, 0))
    degrees = std::strtod(tag->value, nullptr);
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
  const AVPacketSideData* data =
      av_packet_side_data_get(stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  const uint8_t* matrix = data ? data->data : nullptr;
  const size_t size = data ? data->size : 0;
#else
  size_t size = 0;
  const uint8_t* matrix = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
#endif
  std::array<int32_t, 9> m;
  if (matrix && size >= sizeof m && degrees == 0) {
    std::memcpy(m.data(), matrix, sizeof m);
    degrees = -av_display_rotation_get(m.data());
  }
  if (!std::isfinite(degrees)) return 0;
  degrees = std::fmod(degrees, 360);
  return static_cast<int>(degrees < 0 ? degrees + 360 : degrees);
}

Image rotated(Image in, int degrees) {
  if (degrees != 90 && degrees != 180 && degrees != 270) return in;
  const bool swap = degrees != 180;
  Image out = media::make_image(swap ? in.height : in.width, swap ? in.width : in.height);
  uint8_t* rgb = out.rgb.data();
  for (int64_t y = 0; y < out.height; ++y) {
    for (int64_t x = 0; x < out.width; ++x) {
      const int64_t from_x = degrees == 90 ? y : in.width - 1 - (degrees == 180 ? x : y);
      const int64_t from_y = degrees == 270 ? x : in.height - 1 - (degrees == 180 ? y : x);
      rgb = std::copy_n(&in.rgb[static_cast<size_t>(3 * (from_y * in.width + from_x))], 3, rgb);
    }
  }
  return out;
}

// H.264 may code the two fields of a frame as pictures of their own, and MPEG-TS hands them out as
// packets of their own. Finds the second ones, which give no frame.
class SecondFields {
 public:
  explicit SecondFields(const AVCodecParameters& coded) {
    if (coded.codec_id != AV_CODEC_ID_H264) return;
    parser_.reset(av_parser_init(coded.codec_id));
    context_.reset(avcodec_alloc_context3(nullptr));
    if (!parser_ || !context_ || avcodec_parameters_to_context(context_.get(), &coded) < 0) {
      parser_.reset();
      return;
    }
    parser_->flags |= PARSER_FLAG_COMPLETE_FRAMES;
  }

  /// Of all packets, one after another.
  bool is_second(const AVPacket& packet) {
    if (!parser_) return false;
    uint8_t* out = nullptr;
    int size = 0;
    av_parser_parse2(parser_.get(), context_.get(), &out, &size, packet.data, packet.size,
                     packet.pts, packet.dts, packet.pos);
    constexpr int kBoth = AV_PICTURE_STRUCTURE_TOP_FIELD + AV_PICTURE_STRUCTURE_BOTTOM_FIELD;
    const int field = parser_->picture_structure;
    const bool second = open_ != AV_PICTURE_STRUCTURE_UNKNOWN && open_ + field == kBoth;
    const bool is_field =
        field == AV_PICTURE_STRUCTURE_TOP_FIELD || field == AV_PICTURE_STRUCTURE_BOTTOM_FIELD;
    open_ = is_field && !second ? field : AV_PICTURE_STRUCTURE_UNKNOWN;
    return second;
  }

 private:
  struct Close {
    void operator()(AVCodecParserContext* p) const { av_parser_close(p); }
  };
  std::unique_ptr<AVCodecParserContext, Close> parser_;
  Codec context_;
  int open_ = AV_PICTURE_STRUCTURE_UNKNOWN;  // a field that waits for the other
};

// A packet of VP8 whose picture is only referred to: show_frame is bit 4 of the first byte
// (RFC 6386, 9.1).
bool is_hidden(AVCodecID codec, const AVPacket& packet) {
  return codec == AV_CODEC_ID_VP8 && !(packet.data[0] & 0x10);
}

}  // namespace

class VideoFile::Impl {
 public:
  Impl(std::span<const std::byte> bytes, const Limits& limits)
      : bytes_(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()),
        limits_(limits),
        cursor_{bytes_} {}

  Status open();
  int64_t num_frames() const { return num_frames_; }
  double frame_rate() const { return frame_rate_; }
  double seconds(int64_t frame) const { return seconds_[static_cast<size_t>(frame)]; }
  Result<Image> read(int64_t frame);
  int64_t num_decoded() const { return num_decoded_; }

 private:
  Status open_demuxer();
  Status choose_stream();
  std::string streams() const;
  Status collect_packets();
  Status check_packet(const AVPacket& packet) const;
  Status check_all_there(int error) const;
  Status number_frames();
  void find_rate_and_times();
  Status open_decoder();
  Status decode_first();
  void drop_frames(int64_t count);
  size_t key_before(int64_t frame) const;
  void start_at(size_t packet);
  Status send_next();
  Status decode_next();
  Status decode_to(int64_t frame);
  Status make_scaler();
  Result<Image> convert();

  Status damaged(std::string_view what) const {
    return {Code::kDataLoss, fmt::format("{}: {}", container_->name, what)};
  }
  Status failed(std::string_view what, int error) const {
    const Code code = error == AVERROR(ENOMEM)        ? Code::kOutOfMemory
                      : error == AVERROR_PATCHWELCOME ? Code::kUnimplemented
                                                      : Code::kDataLoss;
    return {code, fmt::format("{}: {}: {}", container_->name, what, media::av_text(error))};
  }

  std::span<const uint8_t> bytes_;
  Limits limits_;
  const Container* container_ = nullptr;
  Status length_;  // whether the container says that the file goes on

  // Order matters: the demuxer reads through io_, io_ through cursor_.
  media::Cursor cursor_;
  media::Io io_;
  Demuxer demuxer_;
  AVStream* stream_ = nullptr;
  const AVCodec* codec_ = nullptr;

  std::vector<Coded> packets_;
  int64_t num_empty_ = 0;                 // packets without a byte
  std::vector<int64_t> times_;            // [num_frames_], in units of the stream; empty: untimed
  std::map<int64_t, size_t> key_frames_;  // number of a key frame -> its packet
  int64_t num_frames_ = 0;
  std::vector<double> seconds_;  // [num_frames_]
  double frame_rate_ = 0;
  int rotation_ = 0;

  Codec decoder_;
  Frame frame_;               // the last that came out
  int64_t current_ = kNever;  // its number
  int64_t num_out_ = 0;       // since the beginning
  int64_t num_decoded_ = 0;
  size_t started_at_ = 0, next_packet_ = 0;  // packets that go into the decoder
  int64_t first_needed_ = 0;                 // frames before it may refer to what is not decoded
  bool may_seek_ = true;  // until a decoder does not find its way from a key frame

  int width_ = 0, height_ = 0;  // of all frames, before rotation
  media::Scaler scaler_;
  std::array<int, 5> scaler_key_ = {};  // what scaler_ was made for
  Frame rgb_;
};

Status VideoFile::Impl::open() {
  media::silence_ffmpeg();
  container_ = media::find_container(bytes_);
  if (!container_) {
    return {Code::kInvalidArgument,
            fmt::format("not a video: {}", file_kind(std::as_bytes(bytes_)).name)};
  }
  length_ = media::check_length(*container_, bytes_);
  VLR_RETURN_IF_ERROR(media::check_sample_counts(*container_, bytes_));
  VLR_RETURN_IF_ERROR(open_demuxer());
  if (const Status status = choose_stream(); !status.ok())
    return length_.ok() ? status : length_;  // what is not found may have been cut off
  VLR_RETURN_IF_ERROR(collect_packets());
  VLR_RETURN_IF_ERROR(number_frames());
  VLR_RETURN_IF_ERROR(open_decoder());
  VLR_RETURN_IF_ERROR(decode_first());
  find_rate_and_times();
  rotation_ = rotation_of(*stream_);
  stream_ = nullptr;  // the packets are all that is needed now
  demuxer_.reset();
  io_.reset();
  return {};
}

Status VideoFile::Impl::open_demuxer() {
  const AVInputFormat* format = av_find_input_format(container_->demuxer);
  if (!format) {
    return {Code::kUnimplemented,
            fmt::format("{}: this FFmpeg has no demuxer for it", container_->name)};
  }
  io_ = media::open_memory(&cursor_);
  AVFormatContext* opening = avformat_alloc_context();
  if (!io_ || !opening) {
    avformat_free_context(opening);
    return no_memory();
  }
  opening->pb = io_.get();
  opening->io_open = refuse_to_open;  // nothing but these bytes
  AVDictionary* raw_options = nullptr;
  av_dict_set(&raw_options, "enable_drefs", "0", 0);
  av_dict_set(&raw_options, "protocol_whitelist", "", 0);
  int error = avformat_open_input(&opening, nullptr, format, &raw_options);
  const media::Dictionary options(raw_options);
  if (error < 0) {  // which freed `opening`
    VLR_RETURN_IF_ERROR(length_);
    return failed("its header cannot be read", error);
  }
  demuxer_.reset(opening);
  for (unsigned i = 0; i < demuxer_->nb_streams; ++i) {
    const AVCodecParameters& coded = *demuxer_->streams[i]->codecpar;
    if (coded.codec_type != AVMEDIA_TYPE_VIDEO || (coded.width == 0 && coded.height == 0)) continue;
    VLR_RETURN_IF_ERROR(
        media::check_size(container_->name, coded.width, coded.height, limits_.frame));
  }

  // Decodes some frames where the header leaves something out. Streams that turn up only now have
  // no limit but the codecs' own; a frame of 16384 x 16384 pixels is the most.
  std::vector<AVDictionary*> limits;
  for (unsigned i = 0; i < demuxer_->nb_streams; ++i) {
    AVDictionary* limit = nullptr;
    // The option's range ends there.
    const int64_t max_pixels = std::min<int64_t>(limits_.frame.max_pixels, INT_MAX);
    av_dict_set_int(&limit, "max_pixels", max_pixels, 0);
    limits.push_back(limit);
  }
  error = avformat_find_stream_info(demuxer_.get(), limits.data());
  for (AVDictionary*& limit : limits) av_dict_free(&limit);
  if (error >= 0) return {};
  VLR_RETURN_IF_ERROR(length_);
  return failed("its streams cannot be read", error);
}

std::string VideoFile::Impl::streams() const {
  std::string list;
  int pictures = 0;
  std::map<std::string, std::vector<std::string_view>> kinds;
  for (unsigned i = 0; i < demuxer_->nb_streams; ++i) {
    const AVStream& s = *demuxer_->streams[i];
    if (s.disposition & AV_DISPOSITION_ATTACHED_PIC) {
      ++pictures;
      continue;
    }
    const char* kind = av_get_media_type_string(s.codecpar->codec_type);
    kinds[kind ? kind : "unknown"].push_back(avcodec_get_name(s.codecpar->codec_id));
  }
  for (const auto& [kind, codecs] : kinds) {
    list += fmt::format("{}{} {} stream{}: {}", list.empty() ? "" : "; ", codecs.size(), kind,
                        codecs.size() == 1 ? "" : "s", fmt::join(codecs, ", "));
  }
  if (pictures > 0) list += fmt::format("{}{} cover", list.empty() ? "" : "; ", pictures);
  return list.empty() ? "no stream at all" : list;
}

Status VideoFile::Impl::choose_stream() {
  const auto is_video = [](const AVStream& s) {
    return s.codecpar->codec_type == AVMEDIA_TYPE_VIDEO &&
           !(s.disposition & AV_DISPOSITION_ATTACHED_PIC);
  };
  int index = av_find_best_stream(demuxer_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
  if (index < 0 || !is_video(*demuxer_->streams[index])) {
    index = -1;  // a cover may have been thought the best
    for (unsigned i = 0; i < demuxer_->nb_streams && index < 0; ++i) {
      if (is_video(*demuxer_->streams[i])) index = static_cast<int>(i);
    }
  }
  if (index < 0) {
    return {Code::kInvalidArgument,
            fmt::format("{}: no video stream in it ({})", container_->name, streams())};
  }
  stream_ = demuxer_->streams[index];
  const AVCodecParameters& coded = *stream_->codecpar;
  if (av_dict_get(stream_->metadata, "enc_key_id", nullptr, 0)) {
    return {Code::kUnimplemented, fmt::format("{}: encrypted", container_->name)};
  }
  codec_ = avcodec_find_decoder(coded.codec_id);
  if (!codec_) {
    std::array<char, AV_FOURCC_MAX_STRING_SIZE> tag = {};
    return {Code::kUnimplemented, fmt::format("{}: this FFmpeg has no decoder for {} (tag {})",
                                              container_->name, avcodec_get_name(coded.codec_id),
                                              av_fourcc_make_string(tag.data(), coded.codec_tag))};
  }
  for (unsigned i = 0; i < demuxer_->nb_streams; ++i) {
    if (static_cast<int>(i) != index) demuxer_->streams[i]->discard = AVDISCARD_ALL;
  }
  return {};
}

Status VideoFile::Impl::check_packet(const AVPacket& packet) const {
  if (packet.flags & AV_PKT_FLAG_CORRUPT) {
    VLR_RETURN_IF_ERROR(check_all_there(AVERROR_EOF));
    return damaged(fmt::format("packet {} of the video is damaged", packets_.size()));
  }
  size_t size = 0;
  if (av_packet_get_side_data(&packet, AV_PKT_DATA_ENCRYPTION_INFO, &size)) {
    return {Code::kUnimplemented, fmt::format("{}: encrypted", container_->name)};
  }
  return {};
}

Status VideoFile::Impl::collect_packets() {
  // Of a hostile file, more bytes in packets than there are in the file: they may overlap.
  const auto most = static_cast<int64_t>(2 * bytes_.size() + (1 << 20));
  int64_t total = 0;
  for (;;) {
    Packet packet(av_packet_alloc());
    if (!packet) return no_memory();
    const int error = av_read_frame(demuxer_.get(), packet.get());
    if (error < 0) return check_all_there(error);
    if (packet->stream_index != stream_->index) continue;
    VLR_RETURN_IF_ERROR(check_packet(*packet));
    if (packet->size == 0) {  // the frame before it goes on
      ++num_empty_;
      continue;
    }
    total += packet->size;
    if (static_cast<int64_t>(packets_.size()) == limits_.max_packets) {
      return {Code::kInvalidArgument, fmt::format("{}: more than the allowed {} packets",
                                                  container_->name, limits_.max_packets)};
    }
    if (total > most) return damaged("packets that overlap");
    const bool key = packet->flags & AV_PKT_FLAG_KEY;
    packets_.push_back({std::move(packet), 0, key});
  }
}

// After the last packet: whether more were announced.
Status VideoFile::Impl::check_all_there(int error) const {
  const auto found = static_cast<int64_t>(packets_.size());
  int64_t announced = 0;
  // The sample table, or, with the edits of an edit list, what came of it.
  if (container_->demuxer == std::string_view("mov"))
    announced = avformat_index_get_entries_count(stream_);
  if (announced > found + num_empty_) {
    return damaged(
        fmt::format("truncated: {} of {} frames are there", found + num_empty_, announced));
  }
  if (!length_.ok()) {
    return {length_.code(), fmt::format("{}; {} frames are there", length_.message(), found)};
  }
  if (error != AVERROR_EOF) return failed(fmt::format("damaged after {} frames", found), error);
  if (found == 0) return damaged("no frame in its video stream");
  return {};
}

Status VideoFile::Impl::number_frames() {
  // A stream that starts in the middle of a group of pictures starts with its first key frame.
  const auto is_key = [](const Coded& c) { return c.key; };
  const auto first_key = std::find_if(packets_.begin(), packets_.end(), is_key);
  if (first_key != packets_.end()) packets_.erase(packets_.begin(), first_key);

  SecondFields fields(*stream_->codecpar);
  std::vector<Coded*> shown;
  bool pts = true, dts = stream_->codecpar->video_delay == 0;
  for (Coded& c : packets_) {
    c.frame = kNever;
    if (fields.is_second(*c.packet) || c.packet->flags & AV_PKT_FLAG_DISCARD ||
        is_hidden(codec_->id, *c.packet)) {
      continue;
    }
    pts = pts && c.packet->pts != AV_NOPTS_VALUE;
    dts = dts && c.packet->dts != AV_NOPTS_VALUE;
    shown.push_back(&c);
  }
  if (shown.empty()) return damaged("no frame of its video stream is shown");
  num_frames_ = static_cast<int64_t>(shown.size());
  const auto time = [&](const Coded* c) { return pts ? c->packet->pts : c->packet->dts; };
  if (pts || dts) {
    std::stable_sort(shown.begin(), shown.end(),
                     [&](const Coded* a, const Coded* b) { return time(a) < time(b); });
    for (const Coded* c : shown) times_.push_back(time(c));
  }
  for (size_t i = 0; i < shown.size(); ++i) shown[i]->frame = static_cast<int64_t>(i);
  drop_frames(0);
  return {};
}

// Takes the first frames out, packets and all, and numbers the rest.
void VideoFile::Impl::drop_frames(int64_t count) {
  std::erase_if(packets_, [&](const Coded& c) { return c.frame != kNever && c.frame < count; });
  num_frames_ -= count;
  if (!times_.empty()) times_.erase(times_.begin(), times_.begin() + count);
  key_frames_.clear();
  for (size_t i = 0; i < packets_.size(); ++i) {
    Coded& c = packets_[i];
    if (c.frame != kNever) c.frame -= count;
    if (c.key && c.frame != kNever) key_frames_[c.frame] = i;
    // Decoders hand the pts of a packet on to its frame, in whatever order frames come out.
    c.packet->pts = c.frame;
    c.packet->dts = static_cast<int64_t>(i);
  }
}

void VideoFile::Impl::find_rate_and_times() {
  const AVRational unit = stream_->time_base;
  // Products and quotients of whole numbers, rounded once. A hostile difference may not fit; as
  // unsigned numbers it wraps.
  const auto ticks = [&](int64_t t) {
    return static_cast<double>(static_cast<uint64_t>(t) - static_cast<uint64_t>(times_.front())) *
           unit.num;
  };
  const auto rate = [](AVRational r) { return r.num > 0 && r.den > 0 ? av_q2d(r) : 0; };
  frame_rate_ = rate(stream_->avg_frame_rate);
  if (frame_rate_ == 0 && num_frames_ > 1 && !times_.empty() && ticks(times_.back()) > 0)
    frame_rate_ = static_cast<double>(num_frames_ - 1) * unit.den / ticks(times_.back());
  if (frame_rate_ == 0) frame_rate_ = rate(stream_->r_frame_rate);
  for (int64_t i = 0; i < num_frames_; ++i) {
    seconds_.push_back(!times_.empty()   ? ticks(times_[static_cast<size_t>(i)]) / unit.den
                       : frame_rate_ > 0 ? static_cast<double>(i) / frame_rate_
                                         : 0);
  }
}

Status VideoFile::Impl::open_decoder() {
  decoder_.reset(avcodec_alloc_context3(codec_));
  frame_.reset(av_frame_alloc());
  if (!decoder_ || !frame_) return no_memory();
  int error = avcodec_parameters_to_context(decoder_.get(), stream_->codecpar);
  if (error < 0) return failed("its stream cannot be decoded", error);
  decoder_->thread_count = limits_.threads;
  decoder_->max_pixels = limits_.frame.max_pixels;
  decoder_->err_recognition = kExplode;
  error = avcodec_open2(decoder_.get(), codec_, nullptr);
  return error < 0 ? failed(fmt::format("the decoder of {} does not start", codec_->name), error)
                   : Status();
}

// The first key frame may be led by frames that refer to others before the file's beginning.
// Decoders drop them, or fail at them.
Status VideoFile::Impl::decode_first() {
  const int64_t led = times_.empty() ? 0 : std::max<int64_t>(packets_.front().frame, 0);
  Status status = decode_next();
  if (!status.ok() && led > 0) {
    start_at(0);
    first_needed_ = led;
    status = decode_next();
  }
  VLR_RETURN_IF_ERROR(status);
  if (current_ > led) {
    return damaged(fmt::format("frame 0 of {} does not come out of its decoder", num_frames_));
  }
  if (current_ > 0) {
    drop_frames(current_);
    start_at(0);
    VLR_RETURN_IF_ERROR(decode_next());
  }
  width_ = frame_->width;
  height_ = frame_->height;
  return {};
}

size_t VideoFile::Impl::key_before(int64_t frame) const {
  if (times_.empty() || !may_seek_) return 0;
  const auto after = key_frames_.upper_bound(frame);
  return after == key_frames_.begin() ? 0 : std::prev(after)->second;
}

void VideoFile::Impl::start_at(size_t packet) {
  avcodec_flush_buffers(decoder_.get());
  started_at_ = next_packet_ = packet;
  // After the beginning, the frames that lead a key frame refer to others before it.
  first_needed_ = packet == 0 ? 0 : packets_[packet].frame;
  // The first pictures after a key frame of H.264 may drop references that were never decoded,
  // which would count as damage. What is concealed still shows in the frame's own flags.
  const bool leap = packet > 0 && codec_->id == AV_CODEC_ID_H264;
  decoder_->err_recognition = leap ? AV_EF_CRCCHECK : kExplode;
  current_ = kNever;
  num_out_ = 0;
}

Status VideoFile::Impl::send_next() {
  while (next_packet_ < packets_.size() && packets_[next_packet_].frame != kNever &&
         packets_[next_packet_].frame < first_needed_) {
    ++next_packet_;
  }
  if (next_packet_ == packets_.size()) {
    avcodec_send_packet(decoder_.get(), nullptr);
    return {};
  }
  const Coded& c = packets_[next_packet_++];
  const int error = avcodec_send_packet(decoder_.get(), c.packet.get());
  return error < 0
             ? failed(fmt::format("packet {} of {}", next_packet_ - 1, packets_.size()), error)
             : Status();
}

Status VideoFile::Impl::decode_next() {
  for (;;) {
    const int error = avcodec_receive_frame(decoder_.get(), frame_.get());
    if (error == AVERROR(EAGAIN)) {
      VLR_RETURN_IF_ERROR(send_next());
      continue;
    }
    if (error == AVERROR_EOF) {
      return damaged(fmt::format("only {} of {} frames come out of the decoder of {}", current_ + 1,
                                 num_frames_, codec_->name));
    }
    if (error < 0)
      return failed(fmt::format("packet {} of {}", next_packet_ - 1, packets_.size()), error);
    ++num_decoded_;
    const int64_t number = times_.empty() ? num_out_++ : frame_->pts;
    if (number < 0 || number >= num_frames_) continue;  // not one that is shown
    if (frame_->flags & AV_FRAME_FLAG_CORRUPT || frame_->decode_error_flags != 0)
      return damaged(fmt::format("frame {} of {} is damaged", number, num_frames_));
    const bool first = current_ == kNever;
    current_ = number;
    const auto type = static_cast<int>(frame_->pict_type);
    if (first && started_at_ > 0 && (type == AV_PICTURE_TYPE_P || type == AV_PICTURE_TYPE_B))
      return damaged(fmt::format("frame {} of {} is not a key frame", number, num_frames_));
    return media::check_size(container_->name, frame_->width, frame_->height, limits_.frame);
  }
}

Status VideoFile::Impl::decode_to(int64_t frame) {
  while (current_ < frame) VLR_RETURN_IF_ERROR(decode_next());
  if (current_ > frame) {
    return damaged(
        fmt::format("frame {} of {} does not come out of its decoder", frame, num_frames_));
  }
  return {};
}

Result<Image> VideoFile::Impl::read(int64_t frame) {
  if (frame < 0 || frame >= num_frames_) {
    return {Code::kInvalidArgument,
            fmt::format("{}: frame {} of {}", container_->name, frame, num_frames_)};
  }
  if (const size_t key = key_before(frame); frame < current_ || key > next_packet_) start_at(key);
  Status status = decode_to(frame);
  if (!status.ok() && started_at_ > 0) {
    // H.264's decoder drops what follows an open group's key frame when the file ends before that
    // came out, which is 16 frames later at most.
    start_at(key_before(packets_[started_at_].frame - 16));
    status = decode_to(frame);
  }
  if (!status.ok() && started_at_ > 0) {
    // What the file calls a key frame is none, or not for this decoder. From the beginning, then,
    // and without leaps from here on.
    may_seek_ = false;
    start_at(0);
    status = decode_to(frame);
  }
  VLR_RETURN_IF_ERROR(status);
  return convert();
}

Status VideoFile::Impl::make_scaler() {
  const AVFrame& f = *frame_;
  const std::array<int, 5> key = {f.width, f.height, f.format, media::number(f.colorspace),
                                  media::number(f.color_range)};
  if (scaler_ && key == scaler_key_) return {};
  scaler_.reset(sws_alloc_context());
  if (!scaler_) return no_memory();
  const std::pair<const char*, int> kOptions[] = {
      {"srcw", f.width},
      {"srch", f.height},
      {"src_format", f.format},
      {"dstw", width_},
      {"dsth", height_},
      {"dst_format", AV_PIX_FMT_RGB24},
      // Chroma of 4:2:0 lies between two rows, as libavfilter's `scale` takes it to.
      {"src_v_chr_pos", f.format == AV_PIX_FMT_YUV420P ? 128 : -513},
      {"sws_flags", SWS_BILINEAR}};
  for (const auto& [option, value] : kOptions) av_opt_set_int(scaler_.get(), option, value, 0);
  int *from = nullptr, *to = nullptr, full = 0, to_full = 0, brightness = 0, contrast = 0,
      saturation = 0;
  if (sws_init_context(scaler_.get(), nullptr, nullptr) < 0) {
    const char* name = av_get_pix_fmt_name(static_cast<AVPixelFormat>(f.format));
    return {Code::kUnimplemented,
            fmt::format("{}: pixels of format {}", container_->name, name ? name : "unknown")};
  }
  // Neither matrix nor range for RGB, where this returns -1.
  if (sws_getColorspaceDetails(scaler_.get(), &from, &full, &to, &to_full, &brightness, &contrast,
                               &saturation) >= 0) {
    if (media::number(f.color_range) != AVCOL_RANGE_UNSPECIFIED)
      full = media::number(f.color_range) == AVCOL_RANGE_JPEG;
    sws_setColorspaceDetails(scaler_.get(), sws_getCoefficients(media::number(f.colorspace)), full,
                             to, to_full, brightness, contrast, saturation);
  }
  scaler_key_ = key;
  return {};
}

Result<Image> VideoFile::Impl::convert() {
  VLR_RETURN_IF_ERROR(make_scaler());
  if (!rgb_) {
    rgb_.reset(av_frame_alloc());
    if (!rgb_) return no_memory();
    rgb_->width = width_;
    rgb_->height = height_;
    rgb_->format = AV_PIX_FMT_RGB24;
    if (av_frame_get_buffer(rgb_.get(), 0) < 0) return no_memory();
  }
  if (sws_scale(scaler_.get(), frame_->data, frame_->linesize, 0, frame_->height, rgb_->data,
                rgb_->linesize) != height_) {
    return {Code::kInternal, fmt::format("{}: swscale stopped early", container_->name)};
  }
  Image image = media::make_image(width_, height_);
  for (int64_t y = 0; y < height_; ++y) {
    std::copy_n(rgb_->data[0] + y * rgb_->linesize[0], 3 * width_,
                image.rgb.data() + y * 3 * width_);
  }
  return rotated(std::move(image), rotation_);
}

Result<VideoFile> VideoFile::open(std::span<const std::byte> bytes, const Limits& limits) try {
  auto impl = std::make_unique<Impl>(bytes, limits);
  VLR_RETURN_IF_ERROR(impl->open());
  return VideoFile(std::move(impl));
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "video: no host memory"};
}

Result<Image> VideoFile::read(int64_t frame) try {
  return impl_->read(frame);
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "video: no host memory"};
}

#else

class VideoFile::Impl {
 public:
  int64_t num_frames() const { return 0; }
  double frame_rate() const { return 0; }
  double seconds(int64_t) const { return 0; }
  int64_t num_decoded() const { return 0; }
};

Result<VideoFile> VideoFile::open(std::span<const std::byte>, const Limits&) {
  return {Code::kUnimplemented, "video files: this build is without FFmpeg (VLR_WITH_FFMPEG)"};
}

Result<Image> VideoFile::read(int64_t) { return {Code::kUnimplemented, "video: no FFmpeg"}; }

#endif  // VLR_WITH_FFMPEG

VideoFile::VideoFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
VideoFile::VideoFile(VideoFile&&) noexcept = default;
VideoFile& VideoFile::operator=(VideoFile&&) noexcept = default;
VideoFile::~VideoFile() = default;
int64_t VideoFile::num_frames() const { return impl_->num_frames(); }
double VideoFile::frame_rate() const { return impl_->frame_rate(); }
double VideoFile::seconds(int64_t frame) const { return impl_->seconds(frame); }
int64_t VideoFile::num_decoded() const { return impl_->num_decoded(); }

}  // namespace vlr
