// WebP through libwebp's animation decoder, for stills too, as Pillow does it: the first frame
// stands on a canvas of transparent black.
#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <memory>

#include "multimodal/decoders.h"

namespace vlr::media {

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

  WebPAnimDecoderOptions options;
  if (!WebPAnimDecoderOptionsInit(&options))
    return {Code::kInternal, "webp: libwebp of another version"};
  options.color_mode = MODE_RGBA;
  const WebPData data{bytes.data(), bytes.size()};
  const std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)> decoder(
      WebPAnimDecoderNew(&data, &options), &WebPAnimDecoderDelete);
  if (!decoder) {
    return {Code::kDataLoss,
            fmt::format("webp: damaged or truncated container of {} bytes", bytes.size())};
  }
  WebPAnimInfo canvas;
  uint8_t* rgba = nullptr;  // [height, width, 4], owned by the decoder
  int timestamp_ms = 0;
  if (!WebPAnimDecoderGetInfo(decoder.get(), &canvas) ||
      !WebPAnimDecoderGetNext(decoder.get(), &rgba, &timestamp_ms)) {
    return {Code::kDataLoss,
            fmt::format("webp: damaged or truncated pixels in {} bytes", bytes.size())};
  }
  VLR_RETURN_IF_ERROR(check_size("webp", canvas.canvas_width, canvas.canvas_height, limits));

  Image image = make_image(canvas.canvas_width, canvas.canvas_height);
  const int64_t num_pixels = image.width * image.height;
  uint8_t* rgb = image.rgb.data();
  for (int64_t i = 0; i < num_pixels; ++i, rgba += 4, rgb += 3) {
    const uint32_t alpha = features.has_alpha ? rgba[3] : 255;
    for (int c = 0; c < 3; ++c) rgb[c] = over_white(rgba[c], alpha);
  }
  return image;
}

}  // namespace vlr::media
