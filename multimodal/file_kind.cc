#include "multimodal/file_kind.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "kernels/core/text.h"
#include "multimodal/decoders.h"
#include "multimodal/image.h"
#include "multimodal/video.h"
#include "multimodal/video_container.h"

namespace vlr {
namespace {

using namespace std::string_view_literals;

/// What begins like this at byte `at` has this name, and vlr has no use for it. Letters and digits
/// alone may begin a text as well.
struct Magic {
  size_t at;
  std::string_view bytes, name;
};
constexpr Magic kMagic[] = {
    {0, "%PDF-"sv, "a PDF"},
    {0, "\0\0\0\x0cJXL \r\n\x87\n"sv, "a JPEG XL picture"},
    {0, "\xff\x0a"sv, "a JPEG XL picture"},
    {4, "ftypmsf1"sv, "a HEIF sequence of pictures"},
    {4, "ftypcrx "sv, "a CR3 raw picture"},
    {4, "ftypM4A "sv, "an MPEG-4 audio file"},
    {4, "ftypM4B "sv, "an MPEG-4 audio file"},
    {28, "\x01vorbis"sv, "an Ogg audio file"},
    {28, "OpusHead"sv, "an Ogg audio file"},
    {28, "Speex  "sv, "an Ogg audio file"},
    {28,
     "\x7f"
     "FLAC"sv,
     "an Ogg audio file"},
    {0, "ID3"sv, "an MP3 audio file"},
    {0, "\xff\xfb"sv, "an MP3 audio file"},
    {0, "\xff\xf3"sv, "an MP3 audio file"},
    {0, "\xff\xf2"sv, "an MP3 audio file"},
    {0, "\xff\xf1"sv, "an AAC audio file"},
    {0, "\xff\xf9"sv, "an AAC audio file"},
    {0, "fLaC"sv, "a FLAC audio file"},
    {8, "WAVE"sv, "a WAV audio file"},
    {0, "MThd"sv, "a MIDI file"},
    {0, "PK\x03\x04"sv, "a ZIP archive, which office documents are, too"},
    {0, "PK\x05\x06"sv, "an empty ZIP archive"},
    {0, "GGUF"sv, "a GGUF model"},
    {0, "version https://git-lfs.github.com/spec/"sv,
     "a git-lfs pointer to a file, which 'git lfs pull' fetches"},
    {0, "\x1f\x8b"sv, "a gzip archive"},
    {0, "BZh"sv, "a bzip2 archive"},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "an xz archive"},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive"},
    {0, "\x28\xb5\x2f\xfd"sv, "a Zstandard archive"},
    {0, "Rar!\x1a\x07"sv, "a RAR archive"},
    {257, "ustar"sv, "a tar archive"},
    {0,
     "\x7f"
     "ELF"sv,
     "an ELF program"},
    {0, "\xcf\xfa\xed\xfe"sv, "a Mach-O program"},
    {0, "MZ\x90\0"sv, "a Windows program"},
    {0, "\x93NUMPY"sv, "a NumPy array"},
    {0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv, "an old Office document"},
    {0, "SQLite format 3\0"sv, "a SQLite database"},
    {0, "%!PS"sv, "a PostScript file"},
    {0, "{\\rtf"sv, "a Rich Text document"},
    {0, "8BPS\0\x02"sv, "a PSB picture"},
    {0, "\0\0\x01\0"sv, "a Windows icon"},
    {0, "qoif"sv, "a QOI picture"},
    {0, "v/1\x01"sv, "an OpenEXR picture"},
    {0, "\xff\xfe"sv, "UTF-16 text, where UTF-8 is expected"},
    {0, "\xfe\xff"sv, "UTF-16 text, where UTF-8 is expected"},
};

bool is_safetensors(std::string_view text) {
  if (text.size() < 10 || text[8] != '{') return false;
  uint64_t header = 0;  // its length, little-endian
  for (size_t i = 8; i-- > 0;) header = header << 8 | static_cast<uint8_t>(text[i]);
  constexpr uint64_t kMaxHeader = 100'000'000;
  return header >= 2 && header <= kMaxHeader && (text[9] == '"' || text[9] == '}');
}

/// Whether markup begins with this tag, in any case, behind white space, a byte order mark, comments
/// and a declaration.
bool begins_with_tag(std::string_view text, std::string_view tag) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    const std::string_view end = text.starts_with("<!--") ? "-->"
                                 : text.starts_with("<?") ? "?>"
                                                          : "";
    const size_t at = end.empty() ? text.npos : text.find(end);
    if (at == text.npos) break;
    text.remove_prefix(at + end.size());
  }
  return text.size() >= tag.size() &&
         std::equal(tag.begin(), tag.end(), text.begin(), [](char wanted, char c) {
           return wanted == std::tolower(static_cast<unsigned char>(c));
         });
}

/// Without NUL.
bool is_utf8(std::string_view text) {
  return valid_utf8(text) == text.size() && text.find('\0') == text.npos;
}

bool is_letter_or_digit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

bool has_controls(std::string_view text) {
  return std::ranges::any_of(text, [](char c) {
    const auto u = static_cast<uint8_t>(c);
    return (u < ' ' && !(u >= '\t' && u <= '\r') && u != 0x1b) || (u >= 0x7f && u < 0xa0);
  });
}

}  // namespace

FileKind file_kind(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.empty()) return {FileUse::kNone, "no bytes at all"};
  const bool utf8 = is_utf8(text);
  const bool too_short_for_bmp = utf8 && text.starts_with("BM") && text.size() < 18;
  if (looks_like_image(bytes) && !too_short_for_bmp)
    return {FileUse::kPicture, media::picture_name(bytes)};
  for (const Magic& m : kMagic) {
    if (text.size() < m.at || !text.substr(m.at).starts_with(m.bytes)) continue;
    const std::string_view chunk = m.at == 28 ? "OggS" : m.at == 8 ? "RIFF" : "";
    if (text.starts_with(chunk) && !(utf8 && std::ranges::all_of(m.bytes, is_letter_or_digit)))
      return {FileUse::kNone, m.name};
  }
  if (looks_like_video(bytes)) return {FileUse::kVideo, "a video"};
  if (is_safetensors(text)) return {FileUse::kNone, "a safetensors file"};
  if (!utf8) {
    return {FileUse::kNone, has_controls(text) ? "bytes of no kind that vlr knows"
                                               : "text that is not UTF-8 (Latin-1, perhaps)"};
  }
  if (begins_with_tag(text, "<svg")) return {FileUse::kNone, "an SVG drawing"};
  if (begins_with_tag(text, "<!doctype html") || begins_with_tag(text, "<html"))
    return {FileUse::kText, "an HTML page"};
  return {FileUse::kText, "text"};
}

}  // namespace vlr
