#include <fmt/format.h>
#include <webp/decode.h>

#include <cstdio>  // jpeglib.h wants FILE

#include <jpeglib.h>

#include "multimodal/decoders.h"
#include "multimodal/media.h"

#ifdef VLR_WITH_FFMPEG
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavutil/cpu.h>
#include <libswscale/swscale.h>
}
#endif

#define VLR_TEXT(x) VLR_TEXT_OF(x)
#define VLR_TEXT_OF(x) #x

namespace vlr {

std::string decoder_versions() {
  std::string out = fmt::format("libjpeg-turbo {} libwebp {:x}", VLR_TEXT(LIBJPEG_TURBO_VERSION),
                                WebPGetDecoderVersion());
#ifdef VLR_WITH_FFMPEG
  // swscale rounds as its code for this processor does.
  out += fmt::format(" libavcodec {:x} libswscale {:x} cpu {:x}", avcodec_version(),
                     swscale_version(), static_cast<unsigned>(av_get_cpu_flags()));
#endif
  if (const std::string_view heif = media::heif_version(); !heif.empty())
    out += fmt::format(" libheif {}", heif);
  return out;
}

}  // namespace vlr
