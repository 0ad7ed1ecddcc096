// HEIC through libheif. HEVC gives YUV; what RGB it is, libheif decides, as it does for Pillow's
// plugins. The container's turns and mirrors are applied there, too.
#include "multimodal/decoders.h"

#include <fmt/format.h>

#ifdef VLR_WITH_HEIF
#include <libheif/heif.h>

#include <memory>
#endif

namespace vlr::media {

#ifdef VLR_WITH_HEIF
namespace {

template <class T, void (*kFree)(T*)>
struct FreeHeif {
  void operator()(T* p) const { kFree(p); }
};
using HeifContext = std::unique_ptr<heif_context, FreeHeif<heif_context, heif_context_free>>;
using HeifHandle = std::unique_ptr<const heif_image_handle,
                                   FreeHeif<const heif_image_handle, heif_image_handle_release>>;
using HeifImage = std::unique_ptr<const heif_image, FreeHeif<const heif_image, heif_image_release>>;

Status heif_failed(const heif_error& error) {
  const bool limit = error.subcode == heif_suberror_Security_limit_exceeded;
  const Code code = limit                                              ? Code::kInvalidArgument
                    : error.code == heif_error_Memory_allocation_error ? Code::kOutOfMemory
                    : error.code == heif_error_Unsupported_feature ||
                            error.code == heif_error_Unsupported_filetype
                        ? Code::kUnimplemented
                        : Code::kDataLoss;
  return {code, fmt::format("heic: {}", error.message)};
}

}  // namespace

Result<Image> decode_heic(Bytes bytes, const DecodeLimits& limits) {
  const HeifContext context(heif_context_alloc());
  if (!context) return {Code::kOutOfMemory, "heic: no host memory for libheif"};
  heif_context_set_max_decoding_threads(context.get(), 1);
  heif_error error = heif_context_read_from_memory_without_copy(context.get(), bytes.data(),
                                                                bytes.size(), nullptr);
  if (error.code != heif_error_Ok) return heif_failed(error);
  heif_image_handle* found = nullptr;
  error = heif_context_get_primary_image_handle(context.get(), &found);
  const HeifHandle handle(found);
  if (error.code != heif_error_Ok) return heif_failed(error);
  VLR_RETURN_IF_ERROR(check_size("heic", heif_image_handle_get_width(found),
                                 heif_image_handle_get_height(found), limits));
  const bool alpha = heif_image_handle_has_alpha_channel(found) != 0;
  // YUV of 4:4:4 in 16 bits, what libheif makes of it, RGB.
  constexpr int64_t kBytesPerPixel = 6 + 4 + 3;
  VLR_RETURN_IF_ERROR(check_decode_bytes("heic", heif_image_handle_get_width(found),
                                         heif_image_handle_get_height(found), kBytesPerPixel));
  heif_image* decoded = nullptr;
  error = heif_decode_image(found, &decoded, heif_colorspace_RGB,
                            alpha ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB,
                            nullptr);
  const HeifImage image(decoded);
  if (error.code != heif_error_Ok) return heif_failed(error);
  const int64_t width = heif_image_get_width(decoded, heif_channel_interleaved),
                height = heif_image_get_height(decoded, heif_channel_interleaved);
  VLR_RETURN_IF_ERROR(check_size("heic", width, height, limits));
  int stride = 0;
  const uint8_t* rows = heif_image_get_plane_readonly(decoded, heif_channel_interleaved, &stride);
  if (!rows) return {Code::kDataLoss, "heic: no pixels"};
  Image out = make_image(width, height);
  uint8_t* rgb = out.rgb.data();
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* in = rows + y * stride;
    if (!alpha) {
      rgb = std::copy_n(in, 3 * width, rgb);
      continue;
    }
    for (int64_t x = 0; x < width; ++x, in += 4, rgb += 3) {
      for (int c = 0; c < 3; ++c) rgb[c] = over_white(in[c], in[3]);
    }
  }
  return out;
}

std::string_view heif_version() { return heif_get_version(); }

#else

Result<Image> decode_heic(Bytes, const DecodeLimits&) {
  return {Code::kUnimplemented, "heic: only builds with VLR_WITH_HEIF, libheif, decode it"};
}

std::string_view heif_version() { return {}; }

#endif

}  // namespace vlr::media
