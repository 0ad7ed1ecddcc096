// PNG through libpng, which here only inflates and unfilters: samples come as they are stored, and
// the colour rules are the reference's (it knows no transparency but that of RGBA, and no gamma).
#include <png.h>

#include <fmt/format.h>

#include <csetjmp>
#include <cstring>

#include "multimodal/decoders.h"

namespace vlr::media {
namespace {

// libpng's errors longjmp(), so every call to it stands in a function without destructors.
struct Session {
  png_structp png = nullptr;
  png_infop info = nullptr;
  Bytes bytes;
  size_t position = 0;
  char message[256] = "";
  bool wrong_checksum = false;

  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* session = static_cast<Session*>(png_get_error_ptr(png));
  std::strncpy(session->message, message, sizeof session->message - 1);
  png_longjmp(png, 1);
}

// zlib's checksum over all pixels comes after the last row. libpng only warns when it is wrong; the
// reference refuses the picture.
void on_warning(png_structp png, png_const_charp message) {
  if (std::strstr(message, "incorrect data check")) {
    static_cast<Session*>(png_get_error_ptr(png))->wrong_checksum = true;
  }
}

void read_bytes(png_structp png, png_bytep out, size_t count) {
  auto* session = static_cast<Session*>(png_get_io_ptr(png));
  if (count > session->bytes.size() - session->position) png_error(png, "truncated");
  std::memcpy(out, session->bytes.data() + session->position, count);
  session->position += count;
}

bool read_header(Session& s) {
  s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
  if (!s.png) {
    std::strcpy(s.message, "libpng does not start");
    return false;
  }
  if (setjmp(png_jmpbuf(s.png))) return false;
  s.info = png_create_info_struct(s.png);
  if (!s.info) png_error(s.png, "out of memory");
  png_set_read_fn(s.png, &s, read_bytes);
  png_set_user_limits(s.png, 0x7fffffff,
                      0x7fffffff);  // check_size() limits pixels, whatever the shape
  png_set_keep_unknown_chunks(s.png, PNG_HANDLE_CHUNK_NEVER, nullptr,
                              -1);  // text, profiles, EXIF...
  // Like Pillow: a wrong checksum is an error in every chunk but the pixels'.
  png_set_crc_action(s.png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_read_info(s.png, s.info);
  png_set_crc_action(s.png, PNG_CRC_QUIET_USE, PNG_CRC_NO_CHANGE);
  return true;
}

// Samples of 1, 2 and 4 bits to one byte each; does not scale them.
bool start_rows(Session& s) {
  if (setjmp(png_jmpbuf(s.png))) return false;
  png_set_packing(s.png);
  png_read_update_info(s.png, s.info);
  return true;
}

bool read_row(Session& s, uint8_t* row) {
  if (setjmp(png_jmpbuf(s.png))) return false;
  png_read_row(s.png, row, nullptr);
  return true;
}

Status damaged(const Session& s) {
  const bool memory = std::strstr(s.message, "memory") != nullptr;
  return {memory ? Code::kOutOfMemory : Code::kDataLoss,
          fmt::format("png: {} (at byte {} of {})", s.message, s.position, s.bytes.size())};
}

struct Format {
  int color_type;
  int bit_depth;
  Palette palette;
};

// One row of stored samples -> RGB [width, 3].
void row_to_rgb(const Format& f, const uint8_t* in, size_t width, uint8_t* rgb) {
  const bool wide = f.bit_depth == 16;  // big-endian: the first byte of a sample is the high one
  const size_t sample = wide ? 2 : 1;
  switch (f.color_type) {
    case PNG_COLOR_TYPE_PALETTE:
    case PNG_COLOR_TYPE_GRAY:
      if (wide) {
        for (size_t x = 0; x < width; ++x, in += 2, rgb += 3) {
          std::memset(rgb, grey16_to_8(static_cast<uint32_t>(in[0] << 8 | in[1])), 3);
        }
      } else {
        look_up({in, width}, f.palette, rgb);  // grey: a ramp over the bit depth
      }
      return;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
      for (size_t x = 0; x < width; ++x, in += 2 * sample, rgb += 3) {
        std::memset(rgb, wide ? over_white(in[0], in[2]) : in[0],
                    3);  // 8 bits: mode LA, alpha dropped
      }
      return;
    case PNG_COLOR_TYPE_RGB:
      if (!wide) {
        std::memcpy(rgb, in, 3 * width);
        return;
      }
      for (size_t i = 0; i < 3 * width; ++i) rgb[i] = in[2 * i];
      return;
    case PNG_COLOR_TYPE_RGB_ALPHA:
      for (size_t x = 0; x < width; ++x, in += 4 * sample, rgb += 3) {
        for (size_t c = 0; c < 3; ++c) rgb[c] = over_white(in[c * sample], in[3 * sample]);
      }
      return;
    default:
      return;  // libpng refuses other colour types
  }
}

// Seven small pictures, which have every eighth pixel of every eighth row and so on.
bool read_passes(Session& s, const Format& format, std::span<uint8_t> stored, Image& image) {
  std::vector<uint8_t> row(static_cast<size_t>(3 * image.width));
  for (int pass = 0; pass < PNG_INTERLACE_ADAM7_PASSES; ++pass) {
    const int64_t first_x = PNG_PASS_START_COL(pass), first_y = PNG_PASS_START_ROW(pass),
                  step_x = PNG_PASS_COL_OFFSET(pass), step_y = PNG_PASS_ROW_OFFSET(pass);
    if (first_x >= image.width || first_y >= image.height) continue;  // not in the file
    const int64_t count = (image.width - first_x + step_x - 1) / step_x;
    for (int64_t y = first_y; y < image.height; y += step_y) {
      if (!read_row(s, stored.data())) return false;
      row_to_rgb(format, stored.data(), static_cast<size_t>(count), row.data());
      uint8_t* out = image.rgb.data() + 3 * (y * image.width + first_x);
      for (int64_t i = 0; i < count; ++i, out += 3 * step_x)
        std::copy_n(&row[3 * static_cast<size_t>(i)], 3, out);
    }
  }
  return true;
}

}  // namespace

Result<Image> decode_png(Bytes bytes, const DecodeLimits& limits) {
  Session s;
  s.bytes = bytes;
  if (!read_header(s)) return damaged(s);
  const int64_t width = png_get_image_width(s.png, s.info),
                height = png_get_image_height(s.png, s.info);
  VLR_RETURN_IF_ERROR(check_size("png", width, height, limits));

  Format format{png_get_color_type(s.png, s.info), png_get_bit_depth(s.png, s.info), {}};
  if (format.color_type == PNG_COLOR_TYPE_GRAY && format.bit_depth <= 8) {
    format.palette = Palette::grey(1 << format.bit_depth);
  }
  png_colorp colors = nullptr;
  int num_colors = 0;
  if (png_get_PLTE(s.png, s.info, &colors, &num_colors) &&
      format.color_type == PNG_COLOR_TYPE_PALETTE) {
    for (int i = 0; i < std::min(num_colors, 256); ++i) {
      format.palette.set(static_cast<size_t>(i), colors[i].red, colors[i].green, colors[i].blue);
    }
  }

  if (!start_rows(s)) return damaged(s);
  std::vector<uint8_t> stored(png_get_rowbytes(s.png, s.info));
  Image image = make_image(width, height);
  if (png_get_interlace_type(s.png, s.info) == PNG_INTERLACE_NONE) {
    for (int64_t y = 0; y < height; ++y) {
      if (!read_row(s, stored.data())) return damaged(s);
      row_to_rgb(format, stored.data(), static_cast<size_t>(width),
                 image.rgb.data() + y * width * 3);
    }
  } else if (!read_passes(s, format, stored, image)) {
    return damaged(s);
  }
  if (s.wrong_checksum) return {Code::kDataLoss, "png: the checksum of the pixels is wrong"};
  return image;
}

}  // namespace vlr::media
