// Pictures as vlr sees them, for comparison with other decoders (tools/compare_pillow.py). For
// every FILE one line to stdout: "ok WIDTH HEIGHT" and WIDTH * HEIGHT * 3 bytes of RGB behind it,
// or "error MESSAGE". With --exif pictures are turned as their EXIF says.
#include <fmt/format.h>

#include <cstdio>
#include <string_view>

#include "multimodal/exif.h"
#include "multimodal/image.h"
#include "multimodal/source.h"

namespace {

vlr::Result<vlr::Image> decode(const char* path, bool exif) {
  VLR_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, vlr::read_file(path, int64_t{1} << 30));
  VLR_ASSIGN_OR_RETURN(vlr::Image image, vlr::decode_image(bytes));
  return vlr::media::oriented(std::move(image), exif ? vlr::media::exif_orientation(bytes) : 1);
}

}  // namespace

int main(int argc, char** argv) {
  const bool exif = argc > 1 && std::string_view(argv[1]) == "--exif";
  for (int i = exif ? 2 : 1; i < argc; ++i) {
    const vlr::Result<vlr::Image> image = decode(argv[i], exif);
    if (!image) {
      fmt::print("error {}\n", image.error().message());
      continue;
    }
    fmt::print("ok {} {}\n", image->width, image->height);
    std::fwrite(image->rgb.data(), 1, image->rgb.size(), stdout);
  }
}
