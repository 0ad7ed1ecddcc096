// JPEG through libjpeg-turbo with its defaults (accurate integer IDCT, triangle upsampling), which
// is how Pillow decodes: with the same library the pixels are equal, bit for bit.
#include <fmt/format.h>

#include <csetjmp>
#include <cstdio>  // jpeglib.h wants FILE
#include <cstring>

#include <jerror.h>
#include <jpeglib.h>

#include "multimodal/decoders.h"

namespace vlr::media {
namespace {

// libjpeg reports errors through a callback that must not return, so every call to it stands in a
// function that sets `jump` and has no local with a destructor: longjmp() would skip it.
struct Session {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_source_mgr source{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX] = "";

  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { jpeg_destroy_decompress(&info); }  // does nothing before create
};

enum class Step { kDone, kNoMoreBytes, kError };

[[noreturn]] void on_error(j_common_ptr info) {
  auto* session = static_cast<Session*>(info->client_data);
  info->err->format_message(info, session->message);
  std::longjmp(session->jump, 1);
}

// Every scan of a progressive file goes over the whole picture, and a short one costs the file a
// few bytes only: minutes of work in a megabyte. Encoders write ten or so. A picture of 178 million
// pixels may have 24 scans; from 8 million down it is 500.
constexpr int64_t kMaxScans = 500, kMaxScannedPixels = int64_t{1} << 32;

int64_t max_scans(const jpeg_decompress_struct& info) {
  const int64_t pixels = std::max<int64_t>(int64_t{info.image_width} * info.image_height, 1);
  return std::clamp<int64_t>(kMaxScannedPixels / pixels, 1, kMaxScans);
}

void limit_scans(j_common_ptr info) {
  auto* session = static_cast<Session*>(info->client_data);
  if (session->info.input_scan_number <= max_scans(session->info)) return;
  const auto most = static_cast<int>(max_scans(session->info));
  std::snprintf(session->message, sizeof session->message, "more than %d scans%s", most,
                most < kMaxScans ? " of that many pixels" : "");
  std::longjmp(session->jump, 1);
}

// No bytes beyond the span: libjpeg then suspends, instead of inventing an end as its own memory
// source does. That is how Pillow notices a truncated file.
boolean no_more_bytes(j_decompress_ptr) { return FALSE; }

void skip_bytes(j_decompress_ptr info, long count) {
  if (count <= 0) return;
  const size_t skip = std::min(static_cast<size_t>(count), info->src->bytes_in_buffer);
  info->src->next_input_byte += skip;
  info->src->bytes_in_buffer -= skip;
}

Step read_header(Session& s, Bytes bytes) {
  s.info.err = jpeg_std_error(&s.errors);
  s.errors.error_exit = on_error;
  s.errors.output_message = [](j_common_ptr) {};
  s.info.client_data = &s;
  if (setjmp(s.jump)) return Step::kError;
  jpeg_create_decompress(&s.info);
  s.source.init_source = [](j_decompress_ptr) {};
  s.source.fill_input_buffer = no_more_bytes;
  s.source.skip_input_data = skip_bytes;
  s.source.resync_to_restart = jpeg_resync_to_restart;
  s.source.term_source = [](j_decompress_ptr) {};
  s.source.next_input_byte = bytes.data();
  s.source.bytes_in_buffer = bytes.size();
  s.info.src = &s.source;
  s.progress.progress_monitor = limit_scans;
  s.info.progress = &s.progress;
  return jpeg_read_header(&s.info, TRUE) == JPEG_HEADER_OK ? Step::kDone : Step::kNoMoreBytes;
}

Step start(Session& s, J_COLOR_SPACE color) {
  if (setjmp(s.jump)) return Step::kError;
  s.info.out_color_space = color;
  return jpeg_start_decompress(&s.info) ? Step::kDone : Step::kNoMoreBytes;
}

// The next num_rows rows of info.output_components values, one behind the other.
Step read_rows(Session& s, uint8_t* out, int64_t num_rows, size_t row_bytes) {
  if (setjmp(s.jump)) return Step::kError;
  for (int64_t i = 0; i < num_rows; ++i) {
    JSAMPROW row = out + static_cast<size_t>(i) * row_bytes;
    if (jpeg_read_scanlines(&s.info, &row, 1) != 1) return Step::kNoMoreBytes;
  }
  return Step::kDone;  // bytes behind the last row, the end marker included, do not matter
}

Status status_of(Step step, const Session& s, Bytes bytes) {
  if (step == Step::kDone) return {};
  if (step == Step::kNoMoreBytes) {
    if (s.info.image_height == 0) {
      return {Code::kDataLoss,
              fmt::format("jpeg: truncated: {} bytes end in the header", bytes.size())};
    }
    return {Code::kDataLoss,
            fmt::format("jpeg: truncated: {} bytes end in row {} of {}", bytes.size(),
                        s.info.output_scanline, s.info.image_height)};
  }
  const size_t at = bytes.size() - s.source.bytes_in_buffer;
  const bool unsupported = s.errors.msg_code == JERR_SOF_UNSUPPORTED ||
                           s.errors.msg_code == JERR_BAD_PRECISION ||
                           s.errors.msg_code == JERR_NOT_COMPILED;
  const Code code = unsupported                               ? Code::kUnimplemented
                    : s.errors.msg_code == JERR_OUT_OF_MEMORY ? Code::kOutOfMemory
                                                              : Code::kDataLoss;
  return {code, fmt::format("jpeg: {} (at byte {} of {})", s.message, at, bytes.size())};
}

// Inverted CMYK, as Adobe writes it and as Pillow takes every four-component file, to RGB the way
// Pillow's convert("RGB") does it.
void inverted_cmyk_to_rgb(const uint8_t* cmyk, int64_t num_pixels, uint8_t* rgb) {
  for (int64_t i = 0; i < num_pixels; ++i, cmyk += 4, rgb += 3) {
    const int white = cmyk[3];  // 255 - K
    for (int c = 0; c < 3; ++c) {
      const int u = (255 - cmyk[c]) * white + 128;
      rgb[c] = static_cast<uint8_t>(std::clamp(white - (((u >> 8) + u) >> 8), 0, 255));
    }
  }
}

}  // namespace

Status decode_jpeg(Bytes bytes, const DecodeLimits& limits, RowSink& sink) {
  Session s;
  VLR_RETURN_IF_ERROR(status_of(read_header(s, bytes), s, bytes));
  const int64_t width = s.info.image_width, height = s.info.image_height;
  const int components = s.info.num_components;
  VLR_RETURN_IF_ERROR(check_size("jpeg", width, height, limits));
  if (components != 1 && components != 3 && components != 4) {
    return {Code::kUnimplemented,
            fmt::format("jpeg: {} components, expected 1, 3 or 4", components)};
  }
  VLR_RETURN_IF_ERROR(sink.start(width, height));
  const J_COLOR_SPACE color = components == 1   ? JCS_GRAYSCALE
                              : components == 3 ? JCS_RGB
                                                : JCS_CMYK;
  VLR_RETURN_IF_ERROR(status_of(start(s, color), s, bytes));
  const auto rgb_bytes = static_cast<size_t>(3 * width);
  const auto stored_bytes = static_cast<size_t>(components * width);
  const Palette grey = Palette::grey();
  std::vector<uint8_t> stored(components == 3 ? 0 : stored_bytes);  // a row of grey or CMYK
  for (int64_t y = 0; y < height;) {
    const std::span<uint8_t> rgb = sink.buffer();
    const auto num_rows = std::min(height - y, static_cast<int64_t>(rgb.size() / rgb_bytes));
    if (components == 3) {
      VLR_RETURN_IF_ERROR(status_of(read_rows(s, rgb.data(), num_rows, rgb_bytes), s, bytes));
    } else {
      for (int64_t i = 0; i < num_rows; ++i) {
        uint8_t* row = rgb.data() + static_cast<size_t>(i) * rgb_bytes;
        VLR_RETURN_IF_ERROR(status_of(read_rows(s, stored.data(), 1, stored_bytes), s, bytes));
        if (components == 1)
          look_up(stored, grey, row);
        else
          inverted_cmyk_to_rgb(stored.data(), width, row);
      }
    }
    sink.put(num_rows);
    y += num_rows;
  }
  return {};
}

}  // namespace vlr::media
