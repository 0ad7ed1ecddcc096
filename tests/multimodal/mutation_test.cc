// Mutated pictures and videos, by fixed seeds: none may crash, take 20 s or 2 GB. How many is
// VLR_TEST_MUTATIONS times 1,500 pictures and 520 videos; 1 by default.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "multimodal/media.h"
#include "multimodal/source.h"
#include "multimodal/video.h"
#include "tests/multimodal/fixtures.h"
#include "tests/support/in_child.h"

namespace vlr {
namespace {

using File = std::vector<std::byte>;

int times(int count) {
  const char* factor = std::getenv("VLR_TEST_MUTATIONS");
  return count * (factor ? std::max(std::atoi(factor), 1) : 1);
}

/// One to four changes: bits, bytes, numbers at their extremes, cuts, pieces that come twice.
File mutated(File file, std::mt19937& random) {
  const auto below = [&](size_t n) {
    return static_cast<size_t>(random() % std::max<size_t>(n, 1));
  };
  for (size_t change = 1 + below(4); change > 0 && !file.empty(); --change) {
    const bool in_header = below(2) == 0;
    const size_t at = below(in_header ? std::min<size_t>(file.size(), 256) : file.size());
    const size_t size = std::min(1 + below(16), file.size() - at);
    const auto begin = file.begin() + static_cast<std::ptrdiff_t>(at);
    const auto end = begin + static_cast<std::ptrdiff_t>(size);
    switch (below(6)) {
      case 0:
        *begin ^= static_cast<std::byte>(1u << below(8));
        break;
      case 1:
        std::generate(begin, end, [&] { return static_cast<std::byte>(random()); });
        break;
      case 2:
        std::fill(begin, end, below(2) == 0 ? std::byte{0xff} : std::byte{0});
        break;
      case 3:
        file.resize(std::max<size_t>(at, 1));
        break;
      case 4: {
        const File piece(begin, file.begin() + static_cast<std::ptrdiff_t>(
                                                   at + std::min<size_t>(file.size() - at, 4096)));
        file.insert(begin, piece.begin(), piece.end());
        break;
      }
      default:
        file.erase(begin, end);
    }
  }
  return file;
}

/// In a child per chunk, whose memory counts on its own.
void expect_harmless(int count, const std::vector<File>& originals, uint32_t seed,
                     const std::function<Status(const File&)>& load) {
  constexpr int kChunk = 100;
  for (int first = 0; first < count; first += kChunk) {
    const test::InChild ran = test::in_child([&] {
      std::mt19937 random(seed + static_cast<uint32_t>(first));
      for (int i = first; i < std::min(first + kChunk, count); ++i) {
        const File file = mutated(originals[static_cast<size_t>(i) % originals.size()], random);
        const auto start = std::chrono::steady_clock::now();
        const Status status = load(file);
        const double seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (seconds > 20 || status.code() == Code::kInternal) {
          ADD_FAILURE() << "mutation " << i << ": " << seconds << " s, " << status.message();
          return false;
        }
      }
      return true;
    });
    EXPECT_TRUE(ran.as_expected) << "mutations from " << first << ", signal " << ran.signal;
    EXPECT_LT(test::kSanitized ? 0 : ran.peak_megabytes, 2000) << "mutations from " << first;
  }
}

TEST(Mutated, Pictures) {
  std::vector<File> originals;
  for (const Fixture& f : fixtures()) {
    if (f.width > 0) originals.emplace_back(f.bytes().begin(), f.bytes().end());
  }
  std::mt19937 order(3);
  std::shuffle(originals.begin(), originals.end(), order);
  expect_harmless(times(1500), originals, 1000,
                  [](const File& file) { return load_image(file).error(); });
}

TEST(Mutated, Videos) {
  if (!kWithFfmpeg) GTEST_SKIP() << "built without FFmpeg";
  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator(VLR_SOURCE_DIR "/tests/golden/video")) {
    if (entry.path().extension() != ".txt") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<File> originals;
  for (const auto& path : paths) {
    auto file = read_file(path, 1 << 24);
    ASSERT_TRUE(file.ok()) << file.error().message();
    originals.push_back(*std::move(file));
  }
  expect_harmless(times(520), originals, 2000,
                  [](const File& file) { return load_video(file).error(); });
}

}  // namespace
}  // namespace vlr
