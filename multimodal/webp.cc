// WebP through libwebp: the first frame stands on a canvas of transparent black, as libwebp's animation
// decoder, which Pillow uses, has it. That decoder holds the canvas three times.
#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "multimodal/decoders.h"

namespace vlr::media {
namespace {

// RGBA of one frame; libwebp writes into it, and holds as much again of a lossless one.
Result<std::vector<uint8_t>> decode_frame(const WebPIterator& frame, size_t file_bytes) {
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) return {Code::kInternal, "webp: libwebp of another version"};
  std::vector<uint8_t> pixels(static_cast<size_t>(4 * int64_t{frame.width} * frame.height));
  config.output.colorspace = MODE_RGBA;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {pixels.data(), 4 * frame.width, pixels.size()};
  const VP8StatusCode code = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
  if (code == VP8_STATUS_OUT_OF_MEMORY) return {Code::kOutOfMemory, "webp: no host memory"};
  if (code != VP8_STATUS_OK) {
    return {Code::kDataLoss,
            fmt::format("webp: damaged or truncated pixels in {} bytes", file_bytes)};
  }
  return pixels;
}

}  // namespace

Result<Image> decode_webp(Bytes bytes, const DecodeLimits& limits) {
  WebPBitstreamFeatures features;
  const VP8StatusCode code = WebPGetFeatures(bytes.data(), bytes.size(), &features);
  if (code == VP8_STATUS_NOT_ENOUGH_DATA) {
    return {Code::kDataLoss,
            fmt::format("webp: truncated: {} bytes end in the header", bytes.size())};
  }
  if (code != VP8_STATUS_OK) {
    return {Code::kDataLoss,
            fmt::format("webp: damaged header (libwebp status {})", static_cast<int>(code))};
  }
  VLR_RETURN_IF_ERROR(check_size("webp", features.width, features.height, limits));

  const WebPData data{bytes.data(), bytes.size()};
  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&data),
                                                                         &WebPDemuxDelete);
  WebPIterator frame;
  if (!demuxer || !WebPDemuxGetFrame(demuxer.get(), 1, &frame)) {
    return {Code::kDataLoss,
            fmt::format("webp: damaged or truncated container of {} bytes", bytes.size())};
  }
  const std::unique_ptr<WebPIterator, decltype(&WebPDemuxReleaseIterator)> release(
      &frame, &WebPDemuxReleaseIterator);
  const int64_t width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH),
                height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  VLR_RETURN_IF_ERROR(check_size("webp", width, height, limits));
  VLR_ASSIGN_OR_RETURN(std::vector<uint8_t> pixels, decode_frame(frame, bytes.size()));

  // RGBA becomes RGB where it stands: three bytes a pixel, before the four that they are made of.
  const int64_t frame_pixels = int64_t{frame.width} * frame.height;
  const uint8_t* rgba = pixels.data();
  uint8_t* rgb = pixels.data();
  for (int64_t i = 0; i < frame_pixels; ++i, rgba += 4, rgb += 3) {
    const uint32_t alpha = features.has_alpha ? rgba[3] : 255;
    const uint8_t color[3] = {over_white(rgba[0], alpha), over_white(rgba[1], alpha),
                              over_white(rgba[2], alpha)};
    std::copy_n(color, 3, rgb);
  }
  pixels.resize(static_cast<size_t>(3 * frame_pixels));
  if (frame.width == width && frame.height == height)
    return Image{width, height, std::move(pixels)};

  Image image = make_image(width, height);
  if (features.has_alpha) std::ranges::fill(image.rgb, uint8_t{255});
  for (int64_t y = 0; y < frame.height; ++y) {
    std::copy_n(pixels.data() + 3 * y * frame.width, 3 * int64_t{frame.width},
                image.rgb.data() + 3 * ((frame.y_offset + y) * width + frame.x_offset));
  }
  return image;
}

}  // namespace vlr::media
