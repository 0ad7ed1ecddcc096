#include "multimodal/video_container.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "multimodal/video.h"

namespace vlr::media {
namespace {

using Bytes = std::span<const uint8_t>;

constexpr Container kMp4 = {"mp4", "mov"}, kMatroska = {"matroska", "matroska"},
                    kAvi = {"avi", "avi"}, kMpegTs = {"mpegts", "mpegts"},
                    kMpegPs = {"mpegps", "mpeg"}, kFlv = {"flv", "flv"}, kOgg = {"ogg", "ogg"},
                    kAsf = {"asf", "asf"}, kIvf = {"ivf", "ivf"}, kY4m = {"y4m", "yuv4mpegpipe"},
                    kGif = {"gif", "gif"}, kH264 = {"h264", "h264"}, kHevc = {"hevc", "hevc"},
                    kMpeg4 = {"mpeg4", "m4v"}, kMpegVideo = {"mpegvideo", "mpegvideo"};

std::string_view text(Bytes b, size_t at, size_t count) {
  if (at >= b.size()) return {};
  return {reinterpret_cast<const char*>(b.data()) + at, std::min(count, b.size() - at)};
}

template <size_t kBytes>
uint64_t big_endian(Bytes b, size_t at) {
  uint64_t v = 0;
  for (size_t i = 0; i < kBytes; ++i) v = v << 8 | (at + i < b.size() ? b[at + i] : 0);
  return v;
}

bool any_of(std::string_view value, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// The sync byte at the first packets' starts; of a short file at two of them.
bool is_mpegts(Bytes b) {
  constexpr uint8_t kSync = 0x47;
  struct Packets {
    size_t first, size;
  };
  for (const auto [first, size] : {Packets{0, 188}, Packets{4, 192}, Packets{0, 204}}) {
    bool all = b.size() > first + size;
    for (size_t i = 0; i < 4 && first + i * size < b.size(); ++i)
      all = all && b[first + i * size] == kSync;
    if (all) return true;
  }
  return false;
}

// After a start code 00 00 01, perhaps with another 00 before it.
const Container* find_stream(Bytes b) {
  const bool longer = b.size() > 3 && b[2] == 0;
  const size_t at = longer ? 4 : 3;
  if (b.size() < at + 2 || b[0] != 0 || b[1] != 0 || b[at - 1] != 1) return nullptr;
  const uint8_t code = b[at], next = b[at + 1];
  if (code == 0xba) return &kMpegPs;     // pack header
  if (code == 0xb3) return &kMpegVideo;  // sequence header
  if (code == 0xb0) return &kMpeg4;      // visual object sequence
  // Low 5 bits are the kind of NAL unit: 7 is a sequence parameter set, 9 an access unit delimiter.
  if ((code & 0x80) == 0 && ((code & 0x1f) == 7 || (code == 9 && (next & 0x1f) == 0x10)))
    return &kH264;
  // Bits 1-6: 32 is a video parameter set, 35 a delimiter; layer 0.
  if ((code == 32 << 1 || code == 35 << 1) && next == 1) return &kHevc;
  return nullptr;
}

// MP4: boxes of [size u32][type] or [1 u32][type][size u64]; size 0 reaches to the end.
struct Box {
  std::string_view type;
  uint64_t header, size;
};
std::optional<Box> box_at(Bytes b, size_t at) {
  if (b.size() < 8 || at > b.size() - 8) return std::nullopt;
  Box box{text(b, at + 4, 4), 8, big_endian<4>(b, at)};
  if (box.size == 0) box.size = b.size() - at;
  if (box.size == 1) box.header = 16, box.size = big_endian<8>(b, at + 8);
  const auto printable = [](char c) { return c >= ' ' && c <= '~'; };
  if (box.size < box.header || !std::all_of(box.type.begin(), box.type.end(), printable))
    return std::nullopt;
  return box;
}

// A size of four characters is the beginning of a text ("The free ..."), unless there are that many
// bytes, 150 million at least.
bool is_first_box(Bytes b) {
  const std::optional<Box> box = box_at(b, 0);
  const auto is_text = [](char c) { return (c >= ' ' && c <= '~') || (c >= '\t' && c <= '\r'); };
  return box && (box->size <= b.size() || !std::ranges::all_of(text(b, 0, 4), is_text));
}

Status truncated(const Container& container, std::string_view what, uint64_t at, uint64_t size,
                 Bytes b) {
  return {Code::kDataLoss, fmt::format("{}: truncated: the {} at byte {} has {} bytes, the file "
                                       "ends after {}",
                                       container.name, what, at, size, b.size() - at)};
}

Status check_boxes(Bytes b) {
  for (size_t at = 0; at < b.size();) {
    const std::optional<Box> box = box_at(b, at);
    if (!box) break;  // padding behind the last one
    if (box->size > b.size() - at)
      return truncated(kMp4, fmt::format("box '{}'", box->type), at, box->size, b);
    at += box->size;
  }
  return {};
}

// Boxes of boxes, down to the tables of samples. A box ends with the one that it is in, at the
// latest, as FFmpeg has it: so no byte is walked over more than kDepth + 1 times.
Status check_tables(Bytes b, size_t begin, size_t end, int depth) {
  for (size_t at = begin; at < end;) {
    const std::optional<Box> box = box_at(b, at);
    if (!box) return {};
    const size_t box_end = at + std::min<uint64_t>(box->size, end - at);
    const size_t body = at + box->header;
    if (any_of(box->type, {"moov", "trak", "mdia", "minf", "stbl"})) {
      constexpr int kDepth = 8;
      if (depth == kDepth) return {Code::kDataLoss, "mp4: boxes nested too deeply"};
      VLR_RETURN_IF_ERROR(check_tables(b, body, box_end, depth + 1));
    }
    if (any_of(box->type, {"stsz", "stz2"})) {
      const uint64_t count = big_endian<4>(b, body + 8);
      if (count > b.size()) {
        return {Code::kDataLoss,
                fmt::format("mp4: a track of {} samples in a file of {} bytes", count, b.size())};
      }
    }
    at = box_end;
  }
  return {};
}

// Matroska: the header's element, then the segment, each [id][size], size coded as EBML: as many
// zero bits as bytes follow, a one, the value; all ones: not known.
Status check_segment(Bytes b) {
  const auto size_at = [&](size_t at, size_t& length) -> std::optional<uint64_t> {
    if (at >= b.size() || b[at] == 0) return std::nullopt;
    length = 1;
    while (!(b[at] & (0x80 >> (length - 1)))) ++length;
    uint64_t v = b[at] & (0x7f >> (length - 1)), all = (uint64_t{1} << (7 * length)) - 1;
    for (size_t i = 1; i < length; ++i) v = v << 8 | (at + i < b.size() ? b[at + i] : 0);
    return v == all ? std::nullopt : std::optional(v);
  };
  size_t length = 0;
  const std::optional<uint64_t> header = size_at(4, length);
  if (!header || *header > b.size()) return {};
  const size_t segment = 4 + length + *header;
  constexpr uint32_t kSegment = 0x18538067;
  if (big_endian<4>(b, segment) != kSegment) return {};
  const std::optional<uint64_t> size = size_at(segment + 4, length);
  const size_t body = segment + 4 + length;
  if (size && body <= b.size() && *size > b.size() - body)
    return truncated(kMatroska, "segment", body, *size, b);
  return {};
}

Status check_riff(Bytes b) {
  const uint64_t size =
      uint64_t{b[4]} | uint64_t{b[5]} << 8 | uint64_t{b[6]} << 16 | uint64_t{b[7]} << 24;
  constexpr uint64_t kUnknown = 0x7fffffff;  // or more, or 0: whoever wrote it never came back
  if (size != 0 && size < kUnknown && size > b.size() - 8)
    return truncated(kAvi, "RIFF chunk", 8, size, b);
  return {};
}

// FLV: after the header, tags of [type][size u24][7 bytes] body [u32].
Status check_tags(Bytes b) {
  for (size_t at = big_endian<4>(b, 5) + 4; at < b.size();) {
    const uint64_t size = 11 + big_endian<3>(b, at + 1) + 4;
    if (size > b.size() - at) return truncated(kFlv, "tag", at, size, b);
    at += size;
  }
  return {};
}

// Ogg: pages of 27 bytes, a table of segment sizes, the segments.
Status check_pages(Bytes b) {
  for (size_t at = 0; at < b.size() && text(b, at, 4) == "OggS";) {
    uint64_t size = 27;
    const size_t segments = at + 26 < b.size() ? b[at + 26] : 0;
    size += segments;
    for (size_t i = 0; i < segments && at + 27 + i < b.size(); ++i) size += b[at + 27 + i];
    if (size > b.size() - at) return truncated(kOgg, "page", at, size, b);
    at += size;
  }
  return {};
}

}  // namespace

const Container* find_container(Bytes b) {
  if (b.size() < 12) return nullptr;
  const std::string_view type = text(b, 4, 4);
  if (type == "ftyp") {
    const bool picture = any_of(text(b, 8, 4), {"avif", "avis", "heic", "heix", "heim", "heis",
                                                "hevc", "hevx", "mif1", "msf1", "crx "});
    return picture ? nullptr : &kMp4;
  }
  // QuickTime before there was ftyp.
  if (any_of(type, {"moov", "mdat", "wide", "skip", "free", "pnot"}) && is_first_box(b))
    return &kMp4;
  if (big_endian<4>(b, 0) == 0x1a45dfa3) return &kMatroska;
  if (text(b, 0, 4) == "RIFF" && text(b, 8, 4) == "AVI ") return &kAvi;
  if (text(b, 0, 3) == "FLV" && b[3] < 5 && b[5] == 0) return &kFlv;
  if (text(b, 0, 4) == "OggS") return &kOgg;
  if (big_endian<4>(b, 0) == 0x3026b275) return &kAsf;
  if (text(b, 0, 4) == "DKIF") return &kIvf;
  if (text(b, 0, 10) == "YUV4MPEG2 ") return &kY4m;
  if (text(b, 0, 4) == "GIF8") return &kGif;
  if (is_mpegts(b)) return &kMpegTs;
  return find_stream(b);
}

Status check_length(const Container& container, Bytes b) {
  if (&container == &kMp4) return check_boxes(b);
  if (&container == &kMatroska) return check_segment(b);
  if (&container == &kAvi) return check_riff(b);
  if (&container == &kFlv) return check_tags(b);
  if (&container == &kOgg) return check_pages(b);
  return {};
}

Status check_sample_counts(const Container& container, Bytes b) {
  return &container == &kMp4 ? check_tables(b, 0, b.size(), 0) : Status();
}

}  // namespace vlr::media

namespace vlr {

bool looks_like_video(std::span<const std::byte> bytes) {
  const media::Container* found =
      media::find_container({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  return found && found != &media::kGif;
}

}  // namespace vlr
