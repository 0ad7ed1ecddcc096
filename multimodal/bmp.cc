// BMP, own code: the kinds that Pillow opens, with its reading of palettes, masks and run lengths.
#include <fmt/format.h>

#include "multimodal/decoders.h"

namespace vlr::media {
namespace {

enum Compression : uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitfields = 3 };

struct Header {
  uint32_t header_bytes = 0;
  int64_t width = 0;
  int64_t height = 0;
  bool top_down = false;
  int bits = 0;
  uint32_t compression = kRaw;
  uint32_t num_colors = 0;
  size_t color_bytes = 4;  // of a palette entry: B, G, R and, but for OS/2 headers, a filler
  std::array<uint32_t, 4> mask{};  // R, G, B, alpha
  size_t palette_at = 0;           // also where pixels start in a file that does not say it
  size_t pixels_at = 0;
};

Status truncated(std::string_view where, Bytes bytes) {
  return {Code::kDataLoss, fmt::format("bmp: truncated: {} bytes end in {}", bytes.size(), where)};
}

uint32_t u16(Bytes b, size_t at) { return static_cast<uint32_t>(b[at] | b[at + 1] << 8); }
uint32_t u32(Bytes b, size_t at) { return u16(b, at) | u16(b, at + 2) << 16; }

Result<Header> read_header(Bytes bytes) {
  if (bytes.size() < 18) return truncated("the header", bytes);
  Header h;
  h.pixels_at = u32(bytes, 10);
  h.header_bytes = u32(bytes, 14);
  if (!is_bmp_header_size(h.header_bytes)) {
    return {Code::kUnimplemented, fmt::format("bmp: a header of {} bytes", h.header_bytes)};
  }
  h.palette_at = 14 + h.header_bytes;
  if (bytes.size() < h.palette_at) return truncated("the header", bytes);
  if (h.header_bytes == 12) {
    h.width = u16(bytes, 18);
    h.height = u16(bytes, 20);
    h.bits = static_cast<int>(u16(bytes, 24));
    h.color_bytes = 3;
  } else {
    h.top_down = bytes[25] == 0xff;  // the sign of the height
    h.width = u32(bytes, 18);
    h.height = h.top_down ? (int64_t{1} << 32) - u32(bytes, 22) : u32(bytes, 22);
    h.bits = static_cast<int>(u16(bytes, 28));
    h.compression = u32(bytes, 30);
    h.num_colors = u32(bytes, 46);
    if (h.compression == kBitfields) {
      // The masks are part of the longer headers, and follow the 40-byte one, without alpha.
      if (bytes.size() < 66) return truncated("the colour masks", bytes);
      for (size_t c = 0; c < 3; ++c) h.mask[c] = u32(bytes, 54 + 4 * c);
      if (h.header_bytes >= 56) h.mask[3] = u32(bytes, 66);
      if (h.header_bytes == 40) h.palette_at += 12;
    }
  }
  switch (h.bits) {
    case 1:
    case 4:
    case 8:
      if (h.compression == kBitfields)
        return {Code::kUnimplemented, "bmp: colour masks on a palette"};
      if (h.num_colors == 0) h.num_colors = 1u << h.bits;
      if (h.pixels_at == h.palette_at) h.pixels_at += h.color_bytes * h.num_colors;
      break;
    case 16:
    case 24:
    case 32:
      break;
    default:
      return {Code::kUnimplemented, fmt::format("bmp: {} bits a pixel", h.bits)};
  }
  if (h.compression > kBitfields) {
    return {Code::kUnimplemented, fmt::format("bmp: compression {}", h.compression)};
  }
  if (h.bits > 8 && (h.compression == kRle8 || h.compression == kRle4)) {
    return {Code::kDataLoss, fmt::format("bmp: run lengths of {}-bit pixels", h.bits)};
  }
  return h;
}

// What a pixel index means. A palette that is a ramp of grey makes the reference reread the pixels
// as grey bytes, or as bits when it has two entries, whatever the header says about bits.
struct Colors {
  Palette palette;
  int index_bits = 8;
  bool two_levels = false;
};

Result<Colors> read_colors(const Header& h, Bytes bytes, size_t* end) {
  if (h.num_colors > 65536) return {Code::kDataLoss, fmt::format("bmp: {} colours", h.num_colors)};
  const size_t available = bytes.size() - std::min(bytes.size(), h.palette_at);
  const size_t count = h.num_colors;
  const Bytes entries = bytes.subspan(std::min(bytes.size(), h.palette_at),
                                      std::min(available, count * h.color_bytes));
  *end = h.palette_at + entries.size();
  Colors colors;
  bool ramp = true;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = i * h.color_bytes, shade = count == 2 ? 255 * i : i;
    if (at + 3 > entries.size()) {
      ramp = false;
      break;
    }
    const uint8_t* c = &entries[at];
    ramp = ramp && c[0] == shade && c[1] == shade && c[2] == shade;
    if (i < 256) colors.palette.set(i, c[2], c[1], c[0]);
  }
  if (ramp) {
    colors.two_levels = count == 2;
    colors.index_bits = colors.two_levels ? 1 : 8;
    colors.palette = colors.two_levels ? Palette::grey(2) : Palette::grey();
  } else {
    if (count > 256) return {Code::kDataLoss, fmt::format("bmp: a palette of {} colours", count)};
    colors.index_bits = h.bits;
  }
  return colors;
}

// Run lengths -> one index a pixel, bottom row first (or top, with top_down). Short of pixels is an
// error.
Status expand_runs(const Header& h, Bytes bytes, std::vector<uint8_t>& out) {
  const bool nibbles = h.compression == kRle4;
  const auto width = static_cast<size_t>(h.width);
  const size_t wanted = width * static_cast<size_t>(h.height);
  size_t at = std::min(h.pixels_at, bytes.size());
  size_t x = 0;
  out.reserve(wanted + 256);
  while (out.size() < wanted && bytes.size() - at >= 2) {
    size_t count = bytes[at];
    const uint8_t value = bytes[at + 1];
    at += 2;
    if (count > 0) {  // a run, cut at the end of the row; nibbles alternate
      count = std::min(count, width - std::min(x, width));
      for (size_t i = 0; i < count; ++i) {
        out.push_back(!nibbles ? value
                               : static_cast<uint8_t>(i % 2 == 0 ? value >> 4 : value & 15));
      }
      x += count;
    } else if (value == 0) {  // end of row
      out.resize((out.size() + width - 1) / width * width);
      x = 0;
    } else if (value == 1) {  // end of picture
      break;
    } else if (value == 2) {  // skip right and up
      if (bytes.size() - at < 2) break;
      const size_t skip = bytes[at] + bytes[at + 1] * width;
      out.resize(out.size() + std::min(skip, wanted - out.size()));
      x = out.size() % width;
      at += 2;
    } else {  // literal pixels, padded to an even position in the file
      const size_t literal = nibbles ? value / 2 : value;
      const Bytes data = bytes.subspan(at, std::min(literal, bytes.size() - at));
      for (const uint8_t b : data) {
        if (nibbles) out.push_back(b >> 4);
        out.push_back(nibbles ? b & 15 : b);
      }
      if (data.size() < literal) break;
      x += value;
      at += literal;
      at += at % 2;
      at = std::min(at, bytes.size());
    }
  }
  if (out.size() < wanted) {
    return {Code::kDataLoss,
            fmt::format("bmp: the run lengths give {} of {} pixels", out.size(), wanted)};
  }
  return {};
}

// Where a pixel of 24 or 32 bits keeps R, G, B and alpha, in bytes; alpha -1: none.
struct Order {
  std::array<uint32_t, 4> mask;
  std::array<int, 4> at;
};
constexpr Order kOrders32[] = {
    {{0xff0000, 0xff00, 0xff, 0}, {2, 1, 0, -1}},
    {{0xff000000, 0xff0000, 0xff00, 0}, {3, 2, 1, -1}},
    {{0xff000000, 0xff00, 0xff, 0}, {3, 1, 0, -1}},
    {{0xff000000, 0xff0000, 0xff00, 0xff}, {3, 2, 1, 0}},
    {{0xff, 0xff00, 0xff0000, 0xff000000}, {0, 1, 2, 3}},
    {{0xff0000, 0xff00, 0xff, 0xff000000}, {2, 1, 0, 3}},
    {{0xff000000, 0xff00, 0xff, 0xff0000}, {3, 1, 0, 2}},
    {{0, 0, 0, 0}, {2, 1, 0, 3}},
};
constexpr std::array<uint32_t, 4> kMask565 = {0xf800, 0x7e0, 0x1f, 0},
                                  kMask555 = {0x7c00, 0x3e0, 0x1f, 0};

void row_of_bytes(const uint8_t* in, size_t width, size_t pixel_bytes, const Order& order,
                  uint8_t* rgb) {
  for (size_t x = 0; x < width; ++x, in += pixel_bytes, rgb += 3) {
    const uint32_t alpha = order.at[3] < 0 ? 255 : in[order.at[3]];
    for (size_t c = 0; c < 3; ++c) rgb[c] = over_white(in[order.at[c]], alpha);
  }
}

void row_of_words(const uint8_t* in, size_t width, bool six_bit_green, uint8_t* rgb) {
  const int green = six_bit_green ? 63 : 31;
  for (size_t x = 0; x < width; ++x, in += 2, rgb += 3) {
    const int v = in[0] | in[1] << 8;
    rgb[0] = static_cast<uint8_t>((v >> (six_bit_green ? 11 : 10) & 31) * 255 / 31);
    rgb[1] = static_cast<uint8_t>((v >> 5 & green) * 255 / green);
    rgb[2] = static_cast<uint8_t>((v & 31) * 255 / 31);
  }
}

void row_of_indices(const uint8_t* in, size_t width, int bits, const Palette& palette,
                    uint8_t* rgb) {
  const int per_byte = 8 / bits;
  for (size_t x = 0; x < width; ++x, rgb += 3) {
    const int shift = 8 - bits * (1 + static_cast<int>(x) % per_byte);
    const auto index =
        static_cast<uint8_t>(in[x / static_cast<size_t>(per_byte)] >> shift & ((1 << bits) - 1));
    std::copy_n(palette[index].data(), 3, rgb);
  }
}

}  // namespace

Result<Image> decode_bmp(Bytes bytes, const DecodeLimits& limits) {
  VLR_ASSIGN_OR_RETURN(Header h, read_header(bytes));
  VLR_RETURN_IF_ERROR(check_size("bmp", h.width, h.height, limits));
  Colors colors;
  size_t headers_end = h.palette_at;
  if (h.bits <= 8) {
    VLR_ASSIGN_OR_RETURN(colors, read_colors(h, bytes, &headers_end));
  }
  if (h.pixels_at == 0) h.pixels_at = headers_end;

  Order order = kOrders32[0];
  bool six_bit_green = false;
  if (h.compression == kBitfields) {
    std::array<uint32_t, 4> rgb_mask = h.mask;
    rgb_mask[3] = 0;  // of no meaning below 32 bits
    const auto* found = std::find_if(std::begin(kOrders32), std::end(kOrders32),
                                     [&](const Order& o) { return o.mask == h.mask; });
    const bool known = h.bits == 32   ? found != std::end(kOrders32)
                       : h.bits == 24 ? rgb_mask == order.mask
                                      : rgb_mask == kMask565 || rgb_mask == kMask555;
    if (!known) {
      return {Code::kUnimplemented,
              fmt::format("bmp: colour masks {:x} {:x} {:x} {:x} of {}-bit pixels", h.mask[0],
                          h.mask[1], h.mask[2], h.mask[3], h.bits)};
    }
    if (h.bits == 32) order = *found;
    six_bit_green = rgb_mask == kMask565;
  }

  const auto width = static_cast<size_t>(h.width), height = static_cast<size_t>(h.height);
  std::vector<uint8_t> indices;
  Bytes pixels;
  size_t stride = (width * static_cast<size_t>(h.bits) + 31) / 32 * 4;
  size_t row_bytes =
      (width * static_cast<size_t>(h.bits <= 8 ? colors.index_bits : h.bits) + 7) / 8;
  if (h.compression == kRle8 || h.compression == kRle4) {
    if (colors.two_levels)
      return {Code::kUnimplemented, "bmp: run lengths of a black and white picture"};
    VLR_RETURN_IF_ERROR(expand_runs(h, bytes, indices));
    pixels = indices;
    colors.index_bits = 8;
    stride = row_bytes = width;
  } else {
    pixels = bytes.subspan(std::min(bytes.size(), h.pixels_at));
    if (row_bytes > stride) {
      return {Code::kDataLoss,
              fmt::format("bmp: rows of {} bytes, {} are needed", stride, row_bytes)};
    }
    if (pixels.size() < row_bytes || (pixels.size() - row_bytes) / stride < height - 1) {
      return truncated("the pixels", bytes);
    }
  }

  Image image = make_image(h.width, h.height);
  for (size_t y = 0; y < height; ++y) {
    const uint8_t* in = pixels.data() + y * stride;
    uint8_t* rgb = image.rgb.data() + (h.top_down ? y : height - 1 - y) * width * 3;
    if (h.bits <= 8)
      row_of_indices(in, width, colors.index_bits, colors.palette, rgb);
    else if (h.bits == 16)
      row_of_words(in, width, six_bit_green, rgb);
    else
      row_of_bytes(in, width, static_cast<size_t>(h.bits) / 8, order, rgb);
  }
  return image;
}

}  // namespace vlr::media
