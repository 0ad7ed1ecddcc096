// The pictures of tests/golden/images/images.pack, and what Pillow makes of them.
#ifndef VLR_TESTS_MULTIMODAL_FIXTURES_H_
#define VLR_TESTS_MULTIMODAL_FIXTURES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/multimodal/pack.h"

namespace vlr {

#ifdef VLR_WITH_STB
constexpr bool kWithStb = true;
#else
constexpr bool kWithStb = false;
#endif

#ifdef VLR_WITH_HEIF
constexpr bool kWithHeif = true;
#else
constexpr bool kWithHeif = false;
#endif

#ifdef VLR_WITH_FFMPEG
constexpr bool kWithFfmpeg = true;
#else
constexpr bool kWithFfmpeg = false;
#endif

struct Fixture {
  std::string name;
  std::vector<uint8_t> file;
  int64_t width = 0, height = 0;  // 0: Pillow refuses the file
  int tolerance = 0;
  std::vector<uint8_t> rgb;

  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(file)); }
  std::string format() const { return name.substr(0, name.find('_')); }
  /// In this build.
  bool can_be_decoded() const {
    const bool plain_pnm = name == "pnm_rgb" || name == "pnm_grey" || name == "pnm_truncated";
    if (format() == "heic") return kWithHeif;
    if (format() == "tga" || format() == "psd") return kWithStb;
    if (plain_pnm && kWithStb) return true;
    return kWithFfmpeg || !(format() == "tiff" || format() == "pnm" || format() == "jpeg2000" ||
                            format() == "avif");
  }
};

inline const std::vector<Fixture>& fixtures() {
  static const std::vector<Fixture> all = [] {
    std::vector<Fixture> read;
    Pack pack(VLR_TEST_DATA_DIR "/images.pack");
    while (!pack.done()) {
      Fixture f;
      int64_t file_bytes = -1;
      pack.line() >> f.name >> file_bytes >> f.width >> f.height >> f.tolerance;
      f.file = pack.take(file_bytes);
      f.rgb = pack.take(3 * f.width * f.height);
      read.push_back(std::move(f));
    }
    return read;
  }();
  return all;
}

inline const Fixture& fixture(std::string_view name) {
  const auto it = std::find_if(fixtures().begin(), fixtures().end(),
                               [&](const Fixture& f) { return f.name == name; });
  if (it == fixtures().end()) throw std::runtime_error("no fixture " + std::string(name));
  return *it;
}

}  // namespace vlr

#endif  // VLR_TESTS_MULTIMODAL_FIXTURES_H_
