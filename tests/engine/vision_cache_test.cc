// What was seen before is neither decoded nor run through the tower again, and changes no bits.
#include "engine/scheduling/vision_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "engine/runtime/hash.h"
#include "engine/runtime/safetensors.h"
#include "tests/support/checkpoints.h"
#include "tests/support/temp_folder.h"
#include "vlr/reranker.h"

namespace vlr {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

Hash128 key(uint64_t n) { return {.high = n, .low = ~n}; }

TEST(Hash, NamesBytesWhateverTheirPieces) {
  const std::string text = "the quick brown fox";
  const Hash128 whole = Hasher().add(std::string_view(text)).digest();
  EXPECT_EQ(
      Hasher().add(std::string_view("the quick")).add(std::string_view(" brown fox")).digest(),
      whole);
  EXPECT_NE(Hasher().add(std::string_view("the quick brown fix")).digest(), whole);
  EXPECT_EQ(Hash128::from_hex(whole.hex()), whole);
  // XXH3_128bits of no bytes, seed 0 (xxHash's own test vectors).
  EXPECT_EQ(Hasher().digest().hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_FALSE(Hash128::from_hex("99aa06d3014798d86001c324468d497"));
  EXPECT_FALSE(Hash128::from_hex("99aa06d3014798d86001c324468d497g"));
}

class Memory : public ::testing::Test {
 protected:
  Memory() {
    device_ =
        std::move(OpenDevice::open(*DeviceSpec::parse("cpu"), true, threads_, choices_)).value();
  }
  static void fill(const CachedFeatures& f, int value) {
    for (const auto piece : f.pieces) std::memset(piece.data(), value, piece.size());
  }
  static int64_t bytes_of(const CachedFeatures& f) {
    int64_t sum = 0;
    for (const auto piece : f.pieces) sum += std::ssize(piece);
    return sum;
  }

  ThreadPool threads_{1};
  ImplChoices choices_;
  std::unique_ptr<OpenDevice> device_;
};

TEST_F(Memory, KeepsTheCapAndGivesUpWhatWasNotUsedForLongest) {
  constexpr int64_t kPage = PagePool::kPageBytes;
  VisionCache cache(*device_, 4 * kPage, nullptr);
  for (uint64_t n = 0; n < 4; ++n) {
    const auto added = cache.add(key(n), kPage - 5);
    ASSERT_TRUE(added);
    EXPECT_EQ(bytes_of(*added), kPage - 5);
    fill(*added, static_cast<int>(n));
  }
  ASSERT_TRUE(cache.find(key(0), kPage - 5));  // now 1 is the oldest
  ASSERT_TRUE(cache.add(key(4), 2 * kPage));   // takes the place of 1 and 2
  EXPECT_FALSE(cache.in_memory(key(1)));
  EXPECT_FALSE(cache.in_memory(key(2)));
  EXPECT_TRUE(cache.in_memory(key(3)));
  const auto zero = cache.find(key(0), kPage - 5);
  ASSERT_TRUE(zero);
  EXPECT_EQ(zero->pieces[0][7], std::byte{0});
  EXPECT_FALSE(cache.add(key(5), 5 * kPage));  // more than there is: and nothing is lost for it
  EXPECT_TRUE(cache.in_memory(key(3)));
}

TEST_F(Memory, WhatIsReadStays) {
  constexpr int64_t kPage = PagePool::kPageBytes;
  VisionCache cache(*device_, 2 * kPage, nullptr);
  auto read = cache.add(key(0), 2 * kPage);
  fill(*read, 7);
  EXPECT_FALSE(cache.add(key(1), kPage));
  EXPECT_EQ(read->pieces[1][0], std::byte{7});
  read.reset();
  EXPECT_TRUE(cache.add(key(1), kPage));
  EXPECT_FALSE(cache.in_memory(key(0)));
}

/// A folder for model 1, and a view of it for another.
class Folder : public Memory {
 protected:
  std::unique_ptr<VisionCacheFolder> open(uint64_t model, int64_t max_bytes = 1 << 30) {
    auto folder = VisionCacheFolder::open(temp_.path(), max_bytes,
                                          [&](std::string_view line) { log_ += line; });
    EXPECT_TRUE(folder) << folder.error().message();
    (*folder)->set_model(key(model));
    return *std::move(folder);
  }
  static void write(VisionCacheFolder& folder, uint64_t content, Bytes bytes) {
    std::vector<std::span<std::byte>> pieces = {std::span(bytes).first(3),
                                                std::span(bytes).subspan(3)};
    folder.write_features(key(content), pieces);
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> out;
    for (const auto& f : fs::recursive_directory_iterator(temp_.path()))
      if (f.is_regular_file()) out.push_back(f.path());
    return out;
  }

  testing::TempFolder temp_;
  std::string log_;
};

Bytes pattern(size_t n) {
  Bytes out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<std::byte>(i * 7 + 1);
  return out;
}

TEST_F(Folder, GivesBackWhatWasWritten) {
  const auto folder = open(1);
  write(*folder, 5, pattern(100));
  EXPECT_EQ(folder->read_features(key(5), 100), pattern(100));
  EXPECT_TRUE(folder->read_features(key(6), 100).empty());
  EXPECT_EQ(open(1)->read_features(key(5), 100), pattern(100));
  EXPECT_TRUE(open(2)->read_features(key(5), 100).empty());  // another model's
  const MediaRecord record{.content = key(5), .grid = {2, 4, 6}, .seconds = {0.1, 1.0 / 3}};
  folder->write_media(key(9), record);
  const auto read = open(1)->read_media(key(9));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->content, record.content);
  EXPECT_EQ(read->grid, record.grid);
  EXPECT_EQ(read->seconds, record.seconds);  // to the last bit
  EXPECT_FALSE(open(2)->read_media(key(9)));
  EXPECT_EQ(log_, "");
}

TEST_F(Folder, DamagedFilesAreAsIfTheyWereNotThere) {
  const auto folder = open(1);
  std::mt19937 rng(1);
  for (int round = 0; round < 120; ++round) {
    write(*folder, 5, pattern(1000));
    folder->write_media(key(9), {.content = key(5), .grid = {1, 2, 2}, .seconds = {}});
    for (const fs::path& file : files()) {
      std::string bytes = testing::read_file(file.string());
      if (round % 3 == 0)
        bytes.resize(rng() % bytes.size());
      else
        bytes[rng() % bytes.size()] ^= static_cast<char>(1 + rng() % 255);
      testing::write_file(file.string(), bytes);
    }
    const Bytes read = folder->read_features(key(5), 1000);
    // The padding of a header may hold anything.
    EXPECT_TRUE(read.empty() || read == pattern(1000)) << round;
    if (const auto media = folder->read_media(key(9))) {
      EXPECT_EQ(media->content.hex(), key(5).hex()) << round;
      EXPECT_EQ(media->grid, (std::array<int64_t, 3>{1, 2, 2})) << round;
      EXPECT_TRUE(media->seconds.empty()) << round;
    }
  }
  write(*folder, 5, pattern(1000));
  EXPECT_TRUE(folder->read_features(key(5), 999).empty());
  EXPECT_THAT(log_, HasSubstr("it is removed"));
  EXPECT_FALSE(folder->has_features(key(5)));
}

// Names lead to content: what lies under another one is damaged.
TEST_F(Folder, FilesUnderOtherNamesAreAsIfTheyWereNotThere) {
  const auto one = open(1), two = open(2);
  const MediaRecord record{.content = key(5), .grid = {1, 2, 2}, .seconds = {}};
  write(*one, 5, pattern(100));
  one->write_media(key(9), record);
  const fs::path root = temp_ / "vlr-vision-2";
  const auto features = [&](uint64_t model, uint64_t content) {
    return root / key(model).hex() / ("features-" + key(content).hex() + ".safetensors");
  };
  const auto media = [&](uint64_t model, uint64_t name) {
    return root / key(model).hex() / ("media-" + key(name).hex() + ".json");
  };
  fs::copy_file(features(1, 5), features(1, 6));
  fs::copy_file(features(1, 5), features(2, 5));
  fs::copy_file(media(1, 9), media(1, 8));
  fs::copy_file(media(1, 9), media(2, 9));
  EXPECT_TRUE(one->read_features(key(6), 100).empty());
  EXPECT_THAT(log_, HasSubstr("its checksum is another; it is removed"));
  EXPECT_TRUE(two->read_features(key(5), 100).empty());
  EXPECT_FALSE(one->read_media(key(8)));
  EXPECT_FALSE(two->read_media(key(9)));
  EXPECT_EQ(one->read_features(key(5), 100), pattern(100));
  EXPECT_TRUE(one->read_media(key(9)));
}

TEST_F(Folder, IsItsOwnersAlone) {
  const mode_t before = ::umask(0);
  const auto folder = VisionCacheFolder::open(temp_ / "new/cache", 1 << 20, {});
  ASSERT_TRUE(folder);
  (*folder)->set_model(key(1));
  write(**folder, 5, pattern(100));
  (*folder)->write_media(key(9), {.content = key(5), .grid = {1, 2, 2}, .seconds = {}});
  ::umask(before);
  int seen = 0;
  for (const auto& f : fs::recursive_directory_iterator(temp_ / "new/cache")) {
    EXPECT_EQ(f.status().permissions(), f.is_directory()
                                            ? fs::perms::owner_all
                                            : fs::perms::owner_read | fs::perms::owner_write)
        << f.path();
    ++seen;
  }
  EXPECT_EQ(seen, 4);
  EXPECT_EQ(fs::status(temp_ / "new/cache").permissions(), fs::perms::owner_all);
}

TEST_F(Folder, FollowsNoLinksAndTouchesNoOtherNames) {
  const auto folder = open(1);
  write(*folder, 5, pattern(100));
  const fs::path model = fs::path(temp_ / "vlr-vision-2") / key(1).hex();
  const std::string ours = "features-" + key(7).hex() + ".safetensors";
  const std::vector<fs::path> mine = {
      temp_ / ("far/" + ours),
      temp_ / "far/features-plan.docx",
      model / "features-plan.docx",
      model / ("features-" + key(7).hex() + ".safetensors.txt"),
      model / ("media-" + key(7).hex() + ".safetensors"),
  };
  fs::create_directory(temp_ / "far");
  for (const fs::path& file : mine) testing::write_file(file.string(), std::string(1000, 'x'));
  fs::create_directory_symlink(temp_ / "far", model.parent_path() / key(8).hex());
  fs::create_symlink(temp_ / ("far/" + ours), model / ours);
  // What a crash left is a cache's file.
  testing::write_file((model / (ours + ".0123456789abcdef.7.tmp.89abcdef-3.part")).string(), "x");
  const auto contents = VisionCacheFolder::list(temp_.path());
  ASSERT_TRUE(contents);
  ASSERT_EQ(contents->models.size(), 1u);
  EXPECT_EQ(contents->models[0].features, 1);
  EXPECT_TRUE(folder->read_features(key(7), 1000).empty());
  EXPECT_FALSE(folder->has_features(key(7)));
  open(1, 1)->write_media(key(3), {.content = key(5), .grid = {1, 2, 2}, .seconds = {}});  // trims
  EXPECT_FALSE(folder->has_features(key(5)));
  ASSERT_TRUE(VisionCacheFolder::clear(temp_.path()));
  for (const fs::path& file : mine) EXPECT_TRUE(fs::exists(file)) << file;
  EXPECT_EQ(files().size(), mine.size() + 1);  // and the link to one
}

TEST_F(Folder, PipesAreNotWaitedFor) {
  const auto folder = open(1);
  const fs::path model = fs::path(temp_ / "vlr-vision-2") / key(1).hex();
  for (const std::string& name :
       {"features-" + key(5).hex() + ".safetensors", "media-" + key(9).hex() + ".json"})
    ASSERT_EQ(::mkfifo((model / name).c_str(), 0600), 0);
  EXPECT_TRUE(folder->read_features(key(5), 100).empty());
  EXPECT_FALSE(folder->read_media(key(9)));
}

// An older version's files go, and are not read.
TEST_F(Folder, ClearsOlderVersionsToo) {
  const fs::path model = fs::path(temp_ / "vlr-vision-1") / key(1).hex();
  fs::create_directories(model);
  testing::write_file((model / ("media-" + key(9).hex() + ".json")).string(), "{}");
  EXPECT_EQ(VisionCacheFolder::list(temp_.path()).error().code(), Code::kNotFound);
  EXPECT_EQ(*VisionCacheFolder::clear(temp_.path()), 2);
  EXPECT_TRUE(fs::is_empty(temp_.path()));
}

TEST_F(Folder, KeepsItsCapByAge) {
  const auto folder = open(1, 100'000);
  for (uint64_t n = 0; n < 40; ++n) {
    write(*folder, n, pattern(10'000));
    // The first one is used all the time.
    EXPECT_FALSE(folder->read_features(key(0), 10'000).empty()) << n;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  const auto contents = VisionCacheFolder::list(temp_.path());
  ASSERT_TRUE(contents);
  ASSERT_EQ(contents->models.size(), 1u);
  EXPECT_LE(contents->models[0].bytes, 100'000);
  EXPECT_GE(contents->models[0].features, 7);
  EXPECT_TRUE(folder->has_features(key(39)));
  EXPECT_FALSE(folder->has_features(key(1)));
}

TEST_F(Folder, ListsAndClearsItsOwnFilesOnly) {
  EXPECT_EQ(VisionCacheFolder::list(temp_.path()).error().code(), Code::kNotFound);
  EXPECT_EQ(VisionCacheFolder::clear(temp_.path()).error().code(), Code::kNotFound);
  const auto one = open(1), two = open(2);
  write(*one, 5, pattern(100));
  one->write_media(key(9), {.content = key(5), .grid = {1, 2, 2}, .seconds = {}});
  write(*two, 5, pattern(100));
  testing::write_file(temp_ / "mine.txt", "not the cache's");
  const auto contents = VisionCacheFolder::list(temp_.path());
  ASSERT_TRUE(contents);
  ASSERT_EQ(contents->models.size(), 2u);
  EXPECT_EQ(contents->models[0].name, key(1).hex());
  EXPECT_EQ(contents->models[0].media, 1);
  EXPECT_EQ(contents->models[0].features, 1);
  EXPECT_EQ(contents->models[1].media, 0);
  const auto cleared = VisionCacheFolder::clear(temp_.path());
  ASSERT_TRUE(cleared);
  EXPECT_EQ(*cleared, contents->models[0].bytes + contents->models[1].bytes);
  EXPECT_EQ(files().size(), 1u);
  write(*one, 5, pattern(100));  // whose folder is gone
  EXPECT_THAT(log_, HasSubstr("going on without writing it"));
}

TEST_F(Folder, CannotBeAFile) {
  testing::write_file(temp_ / "file", "");
  const auto folder = VisionCacheFolder::open(temp_ / "file", 1, {});
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(folder.error().message(), HasSubstr("cannot be written"));
}

// ---- in the engine

/// A BMP of width x height random pixels; rows from the top down instead of up for `top_down`.
Media picture(uint32_t seed, int width = 64, int height = 64, bool top_down = false) {
  std::mt19937 rng(seed);
  std::vector<uint8_t> rows(static_cast<size_t>(3 * width * height));
  for (uint8_t& v : rows) v = static_cast<uint8_t>(rng());
  const size_t row = static_cast<size_t>(3 * width);
  std::string out = "BM";
  const auto u32 = [&](int64_t v) {
    for (int i = 0; i < 4; ++i) out += static_cast<char>(v >> (8 * i));
  };
  u32(54 + std::ssize(rows)), u32(0), u32(54), u32(40), u32(width),
      u32(top_down ? -height : height);
  u32(1 | 24 << 16), u32(0), u32(std::ssize(rows)), u32(0), u32(0), u32(0), u32(0);
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    const size_t from = top_down ? static_cast<size_t>(height) - 1 - y : y;
    out.append(reinterpret_cast<const char*>(rows.data() + from * row), row);
  }
  const auto bytes = std::as_bytes(std::span(out));
  return {.path = "picture" + std::to_string(seed) + ".bmp",
          .bytes = std::make_shared<const Bytes>(bytes.begin(), bytes.end())};
}

Request request_over(std::string query, const std::vector<Media>& pictures) {
  Request r;
  r.query.texts = {std::move(query)};
  for (const Media& m : pictures) r.documents.emplace_back().images = {m};
  return r;
}

TEST(Cached, ASecondQueryOver200PicturesDecodesAndSeesNothing) {
  Usage reranker_usage, without_usage;
  std::vector<Media> pictures;
  for (uint32_t i = 0; i < 200; ++i)
    pictures.push_back(picture(i, 32 + 32 * static_cast<int>(i % 3), 64));
  const Request first = request_over("noise in red", pictures),
                second = request_over("noise in blue", pictures);
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  const auto truth_first = score_bits(without, first, &without_usage),
             truth_second = score_bits(without, second, &without_usage);
  EXPECT_EQ(without_usage.decoded_media, 200);
  EXPECT_EQ(without_usage.vision_cache_hits, 0);

  Reranker reranker = open_or_die(demo_model(), {});
  EXPECT_EQ(score_bits(reranker, first, &reranker_usage), truth_first);
  EXPECT_EQ(reranker_usage.decoded_media, 200);
  EXPECT_GT(reranker_usage.vision_batches, 0);
  EXPECT_GT(reranker_usage.image_tokens, 0);
  EXPECT_EQ(reranker_usage.vision_cache_hits, 0);
  EXPECT_EQ(score_bits(reranker, second, &reranker_usage), truth_second);
  EXPECT_EQ(reranker_usage.decoded_media, 0);
  EXPECT_EQ(reranker_usage.vision_batches, 0);
  EXPECT_EQ(reranker_usage.image_tokens, 0);
  EXPECT_EQ(reranker_usage.vision_cache_hits, 200);
}

TEST(Cached, AnyMixOfSeenAndUnseenUnderAnyCapGivesTheSameBits) {
  Usage usage;
  std::vector<Media> pictures;
  for (uint32_t i = 0; i < 30; ++i)
    pictures.push_back(picture(i, 64 + 32 * static_cast<int>(i % 4), 96));
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  std::vector<uint32_t> truth;
  for (const Media& m : pictures) truth.push_back(score_bits(without, request_over("q", {m}))[0]);
  std::mt19937 rng(1);
  // Nothing fits; one or two pictures fit; some; all.
  for (const int64_t pages : {1, 2, 7, 1000}) {
    Reranker reranker =
        open_or_die(demo_model(), {.vision_cache_bytes = pages * PagePool::kPageBytes});
    int64_t hits = 0;
    for (int round = 0; round < 8; ++round) {
      std::vector<size_t> order(1 + rng() % 20);
      for (size_t& i : order) i = rng() % pictures.size();
      std::vector<Media> chosen;
      std::vector<uint32_t> expected;
      for (const size_t i : order) {
        chosen.push_back(pictures[i]);
        expected.push_back(truth[i]);
      }
      EXPECT_EQ(score_bits(reranker, request_over("q", chosen), &usage), expected);
      hits += usage.vision_cache_hits;
    }
    if (pages == 1000) {
      EXPECT_GT(hits, 20);
    }
  }
}

TEST(Cached, ContentCountsNotTheFile) {
  Usage usage;
  Reranker reranker = open_or_die(demo_model(), {});
  const auto truth = score_bits(reranker, request_over("q", {picture(1)}), &usage);
  // Other bytes, the same pixels: decoded, not seen again.
  EXPECT_EQ(score_bits(reranker, request_over("q", {picture(1, 64, 64, true)}), &usage), truth);
  EXPECT_EQ(usage.decoded_media, 1);
  EXPECT_EQ(usage.vision_batches, 0);
  EXPECT_EQ(usage.vision_cache_hits, 1);
  // A path whose file changes is another picture.
  const testing::TempFolder folder;
  const std::string path = folder / "picture.bmp";
  const auto write = [&](const Media& m) {
    testing::write_file(path, {reinterpret_cast<const char*>(m.bytes->data()), m.bytes->size()});
  };
  write(picture(1));
  EXPECT_EQ(score_bits(reranker, request_over("q", {{.path = path}}), &usage), truth);
  EXPECT_EQ(usage.decoded_media, 0);
  write(picture(2));
  EXPECT_NE(score_bits(reranker, request_over("q", {{.path = path}}), &usage), truth);
  EXPECT_EQ(usage.decoded_media, 1);
}

TEST(Cached, QueriesDocumentsAndFramesShareIt) {
  Usage usage;
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  Reranker reranker = open_or_die(demo_model(), {});
  Request documents = request_over("q", {picture(1), picture(2)});
  Request query;
  query.query.images = {picture(2), picture(1)};
  for (const char* text : {"a", "b", "c"}) query.documents.emplace_back().texts = {text};
  Request frames;
  frames.query.texts = {"q"};
  for (const size_t count : {2u, 3u}) {
    Video& video = frames.documents.emplace_back().videos.emplace_back();
    for (uint32_t i = 0; i < count; ++i) video.frames.push_back(picture(i));
  }
  for (const Request* r : {&documents, &query, &frames, &frames})
    EXPECT_EQ(score_bits(reranker, *r, &usage), score_bits(without, *r));
  EXPECT_EQ(usage.decoded_media, 0);
  EXPECT_EQ(usage.vision_cache_hits, 2);
  score_bits(reranker, query, &usage);
  EXPECT_EQ(usage.decoded_media, 0);
  EXPECT_EQ(usage.vision_batches, 0);
}

TEST(Cached, TimesOfFramesAreInThePromptOfAHit) {
  Request frames;
  frames.query.texts = {"q"};
  Video& video = frames.documents.emplace_back().videos.emplace_back();
  for (uint32_t i = 0; i < 5; ++i) video.frames.push_back(picture(i));
  Reranker reranker = open_or_die(demo_model(), {});
  const auto before = reranker.explain(frames);
  ASSERT_TRUE(reranker.score(frames));
  const auto after = reranker.explain(frames);
  ASSERT_TRUE(before && after);
  EXPECT_EQ((*after)[0].prompt, (*before)[0].prompt);
  EXPECT_THAT((*after)[0].prompt, HasSubstr("<2.2 seconds>"));
}

TEST(Prefetch, FillsTheCacheAndSaysWhatIsWrong) {
  Usage usage;
  Reranker reranker = open_or_die(demo_model(), {});
  Content media;
  for (uint32_t i = 0; i < 40; ++i) media.images.push_back(picture(i));
  media.images[3] = {.path = "no/such.png"};
  media.videos.push_back({.frames = {picture(1), picture(2)}});
  Request all;
  all.documents = {media};
  auto fetched = reranker.prefetch(all);
  ASSERT_TRUE(fetched) << fetched.error().message();
  ASSERT_EQ(fetched->media.size(), 41u);
  EXPECT_EQ(fetched->media[0].name, "video of picture1.bmp");
  EXPECT_EQ(fetched->media[4].status, DocumentStatus::kBadMedia);
  EXPECT_EQ(fetched->media[4].message, "no/such.png: no such file");
  for (size_t i = 0; i < 41; ++i) {
    if (i == 4) continue;
    EXPECT_EQ(fetched->media[i].status, DocumentStatus::kOk) << fetched->media[i].message;
    EXPECT_FALSE(fetched->media[i].was_cached);
    EXPECT_GE(fetched->media[i].tokens, 4);
  }
  EXPECT_EQ(fetched->usage.decoded_media, 40);
  fetched = reranker.prefetch(all);
  ASSERT_TRUE(fetched);
  EXPECT_TRUE(fetched->media[0].was_cached && fetched->media[40].was_cached);
  EXPECT_EQ(fetched->usage.vision_batches, 0);

  media.images.erase(media.images.begin() + 3);
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  const Request request = request_over("q", media.images);
  EXPECT_EQ(score_bits(reranker, request, &usage), score_bits(without, request));
  EXPECT_EQ(usage.decoded_media, 0);
  EXPECT_EQ(usage.vision_batches, 0);
  EXPECT_EQ(without.prefetch(all).error().code(), Code::kInvalidArgument);
}

TEST(Cached, AQuerysPicturesInOtherPlacesAreAnotherPrefix) {
  Request aab, abb;
  for (Request* r : {&aab, &abb}) {
    r->query.texts = {"q"};
    for (const char* text : {"a", "b", "c"}) r->documents.emplace_back().texts = {text};
  }
  aab.query.images = {picture(1), picture(1), picture(2)};
  abb.query.images = {aab.query.images[0], aab.query.images[2], aab.query.images[2]};
  Reranker whole = open_or_die(demo_model(), {.share_prefix = false});
  Reranker shared = open_or_die(demo_model(), {});
  for (const Request* r : {&aab, &abb, &aab})
    EXPECT_EQ(score_bits(shared, *r), score_bits(whole, *r));
  EXPECT_NE(score_bits(whole, aab), score_bits(whole, abb));
}

TEST(Cached, OnePictureInManyFilesIsSeenOnce) {
  Usage usage;
  std::vector<Media> copies;
  for (int i = 0; i < 5; ++i) copies.push_back(picture(1));
  Reranker reranker = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  const auto bits = score_bits(reranker, request_over("q", copies), &usage);
  EXPECT_EQ(bits, std::vector<uint32_t>(5, bits[0]));
  EXPECT_EQ(usage.image_tokens, 4);
}

TEST(Prefetch, ThroughMemoryForAFewOntoDisk) {
  Usage usage;
  const testing::TempFolder folder;
  Request all;
  Content& media = all.documents.emplace_back();
  for (uint32_t i = 0; i < 20; ++i) media.images.push_back(picture(i));
  const Options options{.vision_cache_bytes = 2 * PagePool::kPageBytes,
                        .vision_cache_dir = folder.path()};
  Reranker reranker = open_or_die(demo_model(), options);
  const auto fetched = reranker.prefetch(all);
  ASSERT_TRUE(fetched) << fetched.error().message();
  for (const MediaResult& r : fetched->media) EXPECT_EQ(r.status, DocumentStatus::kOk) << r.message;
  Reranker other = open_or_die(demo_model(), options);
  score_bits(other, request_over("q", media.images), &usage);
  EXPECT_EQ(usage.decoded_media, 0);
  EXPECT_EQ(usage.vision_cache_hits, 20);
  // What does not fit is not said to be there.
  Request large;
  large.documents.emplace_back().images = {picture(1, 1024, 1024)};
  const auto refused = reranker.prefetch(large);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->media.at(0).status, DocumentStatus::kTooLong);
}

TEST(Prefetch, WhatTheFolderDidNotTakeIsNotSaidToBeThere) {
  const testing::TempFolder folder;
  Reranker reranker = open_or_die(demo_model(), {.vision_cache_dir = folder.path()});
  fs::remove_all(folder / "vlr-vision-2");  // as on a full disk, nothing can be written
  Request request;
  request.documents.emplace_back().images = {picture(1), picture(2)};
  const auto fetched = reranker.prefetch(request);
  ASSERT_TRUE(fetched) << fetched.error().message();
  for (const MediaResult& r : fetched->media) {
    EXPECT_EQ(r.status, DocumentStatus::kError);
    EXPECT_THAT(r.message, HasSubstr("its features could not be written to the cache's folder"));
  }
}

TEST(OnDisk, AnotherProcessFindsWhatOneSaw) {
  Usage usage;
  const testing::TempFolder folder;
  std::vector<Media> pictures;
  for (uint32_t i = 0; i < 20; ++i) pictures.push_back(picture(i));
  const Request request = request_over("q", pictures);
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  const auto truth = score_bits(without, request);
  std::string log;
  const Options options{.vision_cache_dir = folder.path(),
                        .log = [&](std::string_view line) { log += line; }};
  {
    Reranker reranker = open_or_die(demo_model(), options);
    EXPECT_EQ(score_bits(reranker, request, &usage), truth);
    EXPECT_EQ(usage.decoded_media, 20);
  }
  {
    Reranker reranker = open_or_die(demo_model(), options);
    EXPECT_EQ(score_bits(reranker, request, &usage), truth);
    EXPECT_EQ(usage.decoded_media, 0);
    EXPECT_EQ(usage.vision_batches, 0);
    EXPECT_EQ(usage.vision_cache_hits, 20);
  }
  // Damage costs time, not bits.
  int damaged = 0;
  for (const auto& f : fs::recursive_directory_iterator(folder.path())) {
    if (f.path().extension() != ".safetensors" || ++damaged > 5) continue;
    std::string bytes = testing::read_file(f.path().string());
    bytes[bytes.size() / 2] ^= 1;
    testing::write_file(f.path().string(), bytes);
  }
  {
    Reranker reranker = open_or_die(demo_model(), options);
    EXPECT_EQ(log, "");
    EXPECT_EQ(score_bits(reranker, request, &usage), truth);
    EXPECT_EQ(usage.decoded_media, 5);
    EXPECT_THAT(log, HasSubstr("checksum"));
  }
  // Under a cap for a single picture features come through memory one by one, or not at all.
  Options small = options;
  small.vision_cache_bytes = PagePool::kPageBytes;
  Reranker reranker = open_or_die(demo_model(), small);
  EXPECT_EQ(score_bits(reranker, request, &usage), truth);
  EXPECT_EQ(usage.decoded_media, 0);
}

TEST(OnDisk, SeveralWritersAtATime) {
  const testing::TempFolder folder;
  std::vector<Media> pictures;
  for (uint32_t i = 0; i < 30; ++i) pictures.push_back(picture(i));
  const Request request = request_over("q", pictures);
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  const auto truth = score_bits(without, request);
  std::vector<std::thread> processes;
  for (int p = 0; p < 4; ++p) {
    processes.emplace_back([&] {
      // Small, so that files also go while others read them.
      Reranker reranker = open_or_die(
          demo_model(),
          {.vision_cache_dir = folder.path(), .vision_cache_dir_bytes = 400'000, .num_threads = 1});
      for (int round = 0; round < 3; ++round) EXPECT_EQ(score_bits(reranker, request), truth);
    });
  }
  for (std::thread& t : processes) t.join();
  for (const auto& f : fs::recursive_directory_iterator(folder.path()))
    EXPECT_THAT(f.path().string(), ::testing::Not(HasSubstr(".tmp")));
}

TEST(OnDisk, OtherWeightsAreAnotherModel) {
  Usage other_usage, same_usage;
  const testing::TempFolder folder, checkpoint;
  const Request request = request_over("q", {picture(1)});
  const Options options{.vision_cache_dir = folder.path()};
  Reranker one = open_or_die(demo_model(), options);
  score_bits(one, request);
  // One bit of one weight of the tower.
  for (const auto& f : fs::directory_iterator(demo_model()))
    fs::copy_file(f.path(), checkpoint / f.path().filename().string());
  const auto opened = Checkpoint::open(checkpoint.path());
  ASSERT_TRUE(opened);
  bool changed = false;
  for (const auto& [name, tensor] : opened->tensors()) {
    if (name.find("visual.pos_embed") == std::string::npos) continue;
    const std::string& path = opened->files()[static_cast<size_t>(tensor.file_idx)].path();
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(tensor.file_offset);
    const int byte = file.get();
    file.seekp(tensor.file_offset);
    file.put(static_cast<char>(byte ^ 1));
    changed = file.good();
  }
  ASSERT_TRUE(changed);
  Reranker other = open_or_die(checkpoint.path(), options);
  score_bits(other, request, &other_usage);
  EXPECT_EQ(other_usage.vision_cache_hits, 0);
  Reranker same = open_or_die(demo_model(), options);
  score_bits(same, request, &same_usage);
  EXPECT_EQ(same_usage.vision_cache_hits, 1);
  EXPECT_EQ(VisionCacheFolder::list(folder.path())->models.size(), 2u);
}

}  // namespace
}  // namespace vlr
