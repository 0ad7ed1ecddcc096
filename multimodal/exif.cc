#include "multimodal/exif.h"

#include <array>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "multimodal/avif.h"
#include "multimodal/decoders.h"

namespace vlr::media {
namespace {

// Numbers of one byte order at any place; 0 beyond the end.
struct Fields {
  Bytes bytes;
  bool big_endian;

  uint32_t operator()(size_t at, size_t count) const {
    if (at > bytes.size() || count > bytes.size() - at) return 0;
    uint32_t v = 0;
    for (size_t i = 0; i < count; ++i) v = v << 8 | bytes[at + (big_endian ? i : count - 1 - i)];
    return v;
  }
};

bool starts_with(Bytes bytes, std::string_view text) {
  return bytes.size() >= text.size() &&
         std::equal(text.begin(), text.end(), bytes.begin(),
                    [](char a, uint8_t b) { return uint8_t(a) == b; });
}

constexpr std::string_view kExif("Exif\0\0", 6);

// A file may spread its EXIF over several segments.
std::vector<uint8_t> exif_of_jpeg(Bytes file) {
  constexpr uint8_t kApp1 = 0xe1, kStartOfScan = 0xda;
  std::vector<uint8_t> exif;
  const Fields field{file, true};
  size_t at = 2;
  while (at + 4 <= file.size()) {
    if (file[at] != 0xff || file[at + 1] == 0xff) {  // filler
      ++at;
      continue;
    }
    const uint8_t marker = file[at + 1];
    const size_t size = field(at + 2, 2);  // with the two bytes that hold it
    if (marker == kStartOfScan || size < 2 || size > file.size() - at - 2) break;
    const Bytes body = file.subspan(at + 4, size - 2);
    if (marker == kApp1 && starts_with(body, kExif))
      exif.insert(exif.end(), body.begin() + kExif.size(), body.end());
    at += 2 + size;
  }
  return exif;
}

Bytes exif_of_png(Bytes file) {
  const Fields field{file, true};
  for (size_t at = 8; at + 12 <= file.size();) {
    const size_t size = field(at, 4);
    if (size > file.size() - at - 12) break;
    if (starts_with(file.subspan(at + 4), "eXIf")) return file.subspan(at + 8, size);
    at += 12 + size;
  }
  return {};
}

Bytes exif_of_webp(Bytes file) {
  const Fields field{file, false};
  constexpr uint8_t kHasExif = 0x08;
  if (!starts_with(file.subspan(12), "VP8X") || file.size() < 30 || !(file[20] & kHasExif))
    return {};
  for (size_t at = 12; at + 8 <= file.size();) {
    const size_t size = field(at + 4, 4);
    if (size > file.size() - at - 8) break;
    if (starts_with(file.subspan(at), "EXIF")) return file.subspan(at + 8, size);
    at += 8 + size + size % 2;
  }
  return {};
}

}  // namespace

std::optional<uint32_t> tiff_tag(Bytes tiff, uint32_t tag) {
  if (!starts_with(tiff, {"II*\0", 4}) && !starts_with(tiff, {"MM\0*", 4})) return std::nullopt;
  const Fields field{tiff, tiff[0] == 'M'};
  // Bytes of a value, by type, and whether it is an integer.
  constexpr std::array<size_t, 14> kSize = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4};
  constexpr std::array<bool, 14> kInteger = {false, false, false, true,  true,  false, true,
                                             false, true,  true,  false, false, false, true};
  std::optional<uint32_t> value;
  const size_t directory = field(4, 4), count = field(directory, 2);
  size_t entry = directory + 2;
  for (size_t i = 0; i < count && entry + 12 <= tiff.size(); ++i, entry += 12) {
    const uint32_t type = field(entry + 2, 2);
    if (type >= kSize.size() || kSize[type] == 0) continue;
    const size_t bytes = kSize[type] * field(entry + 4, 4);
    size_t at = entry + 8;  // values of more than four bytes stand elsewhere
    if (bytes > 4) at = field(at, 4);
    if (at > tiff.size() || bytes > tiff.size() - at) break;
    if (bytes > 0 && kInteger[type] && field(entry, 2) == tag) value = field(at, kSize[type]);
  }
  return value;
}

int exif_orientation(std::span<const std::byte> file) {
  const Bytes bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  std::vector<uint8_t> joined;
  Bytes exif;
  if (starts_with(bytes, "\xff\xd8\xff")) {
    joined = exif_of_jpeg(bytes);
    exif = joined;
  } else if (starts_with(bytes, "\x89PNG\r\n\x1a\n")) {
    exif = exif_of_png(bytes);
  } else if (starts_with(bytes, "RIFF") && bytes.size() >= 12) {
    exif = exif_of_webp(bytes);
  } else if (starts_with(bytes.subspan(std::min<size_t>(bytes.size(), 4)), "ftyp")) {
    const Result<AvifItems> items = read_avif(bytes);
    return items ? items->orientation : 1;
  }
  while (starts_with(exif, kExif)) exif = exif.subspan(kExif.size());
  constexpr uint32_t kOrientation = 274;
  const uint32_t value = tiff_tag(exif, kOrientation).value_or(1);
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

Result<Image> oriented(Image in, int orientation) try {
  if (orientation < 2 || orientation > 8) return in;
  const bool swap = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  Image out = make_image(swap ? in.height : in.width, swap ? in.width : in.height);
  uint8_t* rgb = out.rgb.data();
  for (int64_t y = 0; y < out.height; ++y) {
    for (int64_t x = 0; x < out.width; ++x) {
      const int64_t from_x = flip_x ? out.width - 1 - x : x,
                    from_y = flip_y ? out.height - 1 - y : y;
      const int64_t at = swap ? from_x * in.width + from_y : from_y * in.width + from_x;
      rgb = std::copy_n(&in.rgb[static_cast<size_t>(3 * at)], 3, rgb);
    }
  }
  return out;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "orientation: no host memory for the pixels"};
}

}  // namespace vlr::media
