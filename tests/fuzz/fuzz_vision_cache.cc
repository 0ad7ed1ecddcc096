// Files of a vision cache on disk. By the first byte: any bytes are a record or features, which are
// as if they were not there or hold together; what was written comes back; a file of which a byte
// is changed gives what was written, or nothing.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/scheduling/vision_cache_folder.h"
#include "tests/support/temp_folder.h"

namespace {

using vlr::Hash128;
using vlr::MediaRecord;

constexpr Hash128 kModel = {1, 2}, kKey = {3, 4}, kContent = {5, 6};
constexpr int64_t kFeatureBytes = 8;

struct Cache {
  vlr::testing::TempFolder temp;
  std::unique_ptr<vlr::VisionCacheFolder> folder;
  std::string media, features;  // paths

  Cache() {
    auto opened = vlr::VisionCacheFolder::open(temp.path(), 1 << 20, {});
    if (!opened) std::abort();
    folder = *std::move(opened);
    folder->set_model(kModel);
    const std::string model = temp / "vlr-vision-2/" + kModel.hex();
    media = model + "/media-" + kKey.hex() + ".json";
    features = model + "/features-" + kContent.hex() + ".safetensors";
  }
};

bool same(const MediaRecord& a, const MediaRecord& b) {
  return a.content == b.content && a.grid == b.grid && a.seconds == b.seconds;
}

bool is_legal(const MediaRecord& r) {
  return std::ranges::all_of(r.grid, [](int64_t n) { return n >= 1 && n <= 1 << 20; }) &&
         std::ranges::all_of(
             r.seconds, [](double s) { return std::isfinite(s) && (s != 0 || !std::signbit(s)); });
}

/// A record whose values are these bytes, as many as there are.
MediaRecord record_of(std::string_view bytes) {
  MediaRecord r{.content = kContent, .grid = {1, 2, 2}, .seconds = {}};
  const auto take = [&](auto& to) {
    const size_t count = std::min(bytes.size(), sizeof to);
    std::memcpy(&to, bytes.data(), count);
    bytes.remove_prefix(count);
  };
  std::array<uint16_t, 3> grid = {1, 2, 2};
  for (uint16_t& n : grid) take(n);
  std::ranges::copy(grid, r.grid.begin());
  take(r.content.low);
  while (!bytes.empty()) take(r.seconds.emplace_back());
  return r;
}

/// The first two bytes say where, the third what is there then.
void damage_file(const std::string& path, std::string_view how) {
  std::string file = vlr::testing::read_file(path);
  const size_t at = size_t{static_cast<uint8_t>(how[0])} << 8 | static_cast<uint8_t>(how[1]);
  file[at % file.size()] = how[2];
  vlr::testing::write_file(path, file);
}

void check_foreign_record(Cache& cache, std::string_view bytes) {
  vlr::testing::write_file(cache.media, bytes);
  const auto found = cache.folder->read_media(kKey);
  if (found && !is_legal(*found)) std::abort();
}

void check_foreign_features(Cache& cache, std::string_view bytes) {
  vlr::testing::write_file(cache.features, bytes);
  const auto found = cache.folder->read_features(kContent, kFeatureBytes);
  if (!found.empty() && std::ssize(found) != kFeatureBytes) std::abort();
}

void check_record(Cache& cache, std::string_view bytes, bool damage) {
  if (damage && bytes.size() < 3) return;
  const MediaRecord record = record_of(bytes.substr(damage ? 3 : 0));
  cache.folder->write_media(kKey, record);
  if (damage) damage_file(cache.media, bytes);
  const auto found = cache.folder->read_media(kKey);
  if (found ? !same(*found, record) : is_legal(record) && !damage) std::abort();
}

void check_features(Cache& cache, std::string_view bytes, bool damage) {
  if (damage && bytes.size() < 3) return;
  std::string values(bytes.substr(damage ? 3 : 0));
  const std::span<std::byte> piece = std::as_writable_bytes(std::span(values));
  cache.folder->write_features(kContent, std::span(&piece, 1));
  if (damage) damage_file(cache.features, bytes);
  const auto found = cache.folder->read_features(kContent, std::ssize(values));
  if (found.empty() ? !damage && !values.empty() : !std::ranges::equal(found, piece)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Cache cache;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0]) {
    case 'M':
      check_foreign_record(cache, bytes);
      break;
    case 'F':
      check_foreign_features(cache, bytes);
      break;
    case 'm':
      check_record(cache, bytes, false);
      break;
    case 'f':
      check_features(cache, bytes, false);
      break;
    case 'd':
      check_record(cache, bytes, true);
      break;
    case 'D':
      check_features(cache, bytes, true);
      break;
    default:
      break;
  }
  return 0;
}
