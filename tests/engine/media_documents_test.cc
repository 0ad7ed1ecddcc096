// Documents of media from files, URIs and memory: every failure is a status of one document, with
// the file and what was found; video files are sampled as asked for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "multimodal/source.h"
#include "tests/support/checkpoints.h"
#ifdef VLR_WITH_FFMPEG
#include "tests/support/make_video.h"
#endif
#include "tests/support/temp_folder.h"
#include "vlr/reranker.h"

namespace vlr {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string golden(std::string_view name) { return (kGolden / "media" / name).string(); }

std::string base64(std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k)
      v = v << 8 | (i + k < bytes.size() ? std::to_integer<uint32_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k)
      out += i + k > bytes.size() ? '=' : kDigits[v >> (18 - 6 * k) & 63];
  }
  return out;
}

std::vector<std::byte> bytes_of(const std::string& path) {
  auto bytes = read_file(path, 1 << 24);
  EXPECT_TRUE(bytes) << bytes.error().message();
  return *std::move(bytes);
}

Content image(std::string path) { return {.images = {{.path = std::move(path)}}}; }
Content video(std::string path) {
  return {.videos = {{.frames = {}, .file = Media{.path = std::move(path)}}}};
}

class MediaDocuments : public ::testing::Test {
 protected:
  void write(std::string_view name, std::string_view bytes) {
    testing::write_file(folder_ / name, bytes);
  }
#ifdef VLR_WITH_FFMPEG
  std::string made(std::string_view name, const test::VideoRecipe& recipe, int frames) {
    auto bytes = test::make_video(recipe, test::numbered_frames(frames));
    EXPECT_TRUE(bytes) << bytes.error().message();
    write(name, {reinterpret_cast<const char*>(bytes->data()), bytes->size()});
    return folder_ / name;
  }
#endif
  static std::vector<DocumentResult> score(Reranker& reranker, std::vector<Content> documents,
                                           Usage* usage = nullptr) {
    Request request;
    request.query.texts = {"a star"};
    request.documents = std::move(documents);
    auto response = reranker.score(request);
    EXPECT_TRUE(response) << response.error().message();
    if (usage) *usage = response->usage;
    return response->results;
  }

  testing::TempFolder folder_;
};

TEST_F(MediaDocuments, EveryFailureHasAStatusTheFileAndWhatWasFound) {
  const std::string jpeg = testing::read_file(golden("photo.jpg"));
  write("cut.jpg", jpeg.substr(0, jpeg.size() / 2));
  write("hello.png", "hello world");
  write("empty.png", "");
  write("big.bin", std::string(300'000, 'x'));
  std::string bomb = testing::read_file(golden("small.png"));
  std::memcpy(bomb.data() + 16, "\x00\x01\x00\x00\x00\x01\x00\x00", 8);  // 65536 x 65536
  write("bomb.png", bomb);
  struct Case {
    Content document;
    std::string file, reason;
  };
  std::vector<Case> cases = {
      {image(folder_ / "no.png"), "no.png", "no such file"},
      {image(folder_.path()), folder_.path(), "is a folder"},
      {image(folder_ / "empty.png"), "empty.png", "is empty"},
      {image(folder_ / "hello.png"), "hello.png", "not an image: text"},
      {image(folder_ / "cut.jpg"), "cut.jpg", "jpeg: truncated"},
      {image(folder_ / "big.bin"), "big.bin", "at most 200000 are allowed"},
      {image(folder_ / "bomb.png"), "bomb.png", "png"},
      {image("s3://bucket/a.png"), "s3://bucket/a.png", "http"},
      {image("https://example.com/a.png"), "https://example.com/a.png", "allow"},
      {image("data:image/png;base64,!!!!"), "data:image/png", "base64"},
      {{.images = {{.path = "mine", .bytes = std::make_shared<const std::vector<std::byte>>(3)}}},
       "mine",
       "not an image"},
      {{.videos = {{.frames = {{.path = golden("small.png")}, {.path = golden("tall.png")}}}}},
       "small.png",
       "video frame 1"},
      {video(folder_ / "no.mp4"), "no.mp4", "no such file"},
      {video(folder_ / "hello.png"), "hello.png", "video"},
      {video(golden("small.png")), "small.png", "video"},
  };
#ifdef VLR_WITH_FFMPEG
  test::VideoRecipe sound{.with_video = false, .with_audio = true};
  sound.muxer = "matroska";
  cases.push_back({video(made("sound.mkv", sound, 1)), "sound.mkv", "no video stream"});
  cases.push_back({video(made("one.mkv", {}, 1)), "one.mkv", "frame"});
  const std::string whole = testing::read_file(made("whole.mkv", {}, 30));
  write("cut.mkv", whole.substr(0, whole.size() / 2));
  cases.push_back({video(folder_ / "cut.mkv"), "cut.mkv", "truncated"});
#endif
  std::vector<Content> documents;
  for (const Case& c : cases) {
    documents.push_back(c.document);
    documents.push_back({.texts = {"fine"}});
  }
  Reranker reranker = open_or_die(demo_model(), {.max_media_bytes = 200'000});
  const auto results = score(reranker, documents);
  ASSERT_EQ(results.size(), 2 * cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    const DocumentResult& bad = results[2 * i];
    EXPECT_EQ(bad.status, DocumentStatus::kBadMedia) << i << ": " << bad.message;
    EXPECT_THAT(bad.message, HasSubstr(cases[i].file)) << i;
    EXPECT_THAT(bad.message, HasSubstr(cases[i].reason)) << i;
    EXPECT_EQ(results[2 * i + 1].status, DocumentStatus::kOk);
    EXPECT_EQ(results[2 * i + 1].log_odds, results[1].log_odds);
  }
}

TEST_F(MediaDocuments, OnePictureByManyNames) {
  const std::string path = golden("small.png");
  const auto bytes = bytes_of(path);
  Reranker reranker = open_or_die(demo_model(), {.media_root = kGolden.string()});
  Usage usage;
  const auto results =
      score(reranker,
            {image(path),
             image("media/small.png"),
             image("file://" + path),
             image("file://media/small.png"),
             image("data:image/png;base64," + base64(bytes)),
             {.images = {{.bytes = std::make_shared<const std::vector<std::byte>>(bytes)}}}},
            &usage);
  for (const DocumentResult& r : results) {
    ASSERT_EQ(r.status, DocumentStatus::kOk) << r.index << ": " << r.message;
    EXPECT_EQ(r.log_odds, results[0].log_odds);
  }
  EXPECT_EQ(usage.vision_batches, 1);
}

// What a server lets requests name; bytes and data: URIs are no files.
TEST_F(MediaDocuments, FilesAreConfinedWhereAServerSaysSo) {
  const auto statuses = [&](const std::string& where) {
    Options options{.media_root = golden("")};
    options.local_files = where;
    Reranker reranker = open_or_die(demo_model(), options);
    const std::string bytes = testing::read_file(golden("small.png"));
    std::string out;
    for (const DocumentResult& r :
         score(reranker,
               {image("small.png"), image(golden("small.png")), image("../README.md"),
                image("/etc/passwd"),
                image("data:image/png;base64," + base64(std::as_bytes(std::span(bytes))))})) {
      out += std::string(document_status_name(r.status)) + " ";
      EXPECT_THAT(r.message, Not(HasSubstr("root:")));
      const bool leads_out = r.index == 2 || r.index == 3;
      const char* reason = where == "never" && r.index < 4 ? "files of this machine are not allowed"
                           : where == "below_media_root" && leads_out
                               ? "is not below the media root"
                               : "";
      EXPECT_THAT(r.message, HasSubstr(reason));
    }
    return out;
  };
  EXPECT_EQ(statuses("anywhere"), "ok ok bad_media bad_media ok ");
  EXPECT_EQ(statuses("below_media_root"), "ok ok bad_media bad_media ok ");
  EXPECT_EQ(statuses("never"), "bad_media bad_media bad_media bad_media ok ");
}

TEST_F(MediaDocuments, OptionsOfImages) {
  const auto tokens = [&](const Options& options, const std::string& name) {
    Reranker reranker = open_or_die(demo_model(), options);
    Request request;
    request.query.texts = {"q"};
    request.documents = {image(golden(name))};
    const auto explained = reranker.explain(request);
    EXPECT_TRUE(explained);
    const auto& e = explained->at(0);
    return e.image_grids.empty()
               ? e.result.message
               : std::to_string(e.image_grids[0][1]) + "x" + std::to_string(e.image_grids[0][2]);
  };
  const std::string usual = tokens({}, "photo.jpg");
  EXPECT_THAT(tokens({.max_pixels = 64 * 64}, "photo.jpg"), Not(usual));
  EXPECT_THAT(tokens({.max_decoded_pixels = 100}, "photo.jpg"), HasSubstr("at most 100"));
  for (const Options& wrong :
       {Options{.max_pixels = 0}, Options{.fps = 0}, Options{.num_frames = 0},
        Options{.local_files = "below"}, Options{.video_sampling = "all"},
        Options{.remote_timeout = 0}, Options{.remote_request_timeout = 0},
        Options{.max_remote_bytes = 0}}) {
    const auto refused = Reranker::open(demo_model(), wrong);
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  }
}

#ifdef VLR_WITH_FFMPEG

/// "<0.6 seconds>" and so on, out of the prompt of a document.
std::vector<std::string> times(const std::string& prompt) {
  std::vector<std::string> out;
  for (size_t at = 0; (at = prompt.find('<', at)) != prompt.npos; ++at) {
    const size_t end = prompt.find(" seconds>", at);
    const std::string text = prompt.substr(at + 1, end == prompt.npos ? 0 : end - at - 1);
    if (!text.empty() && text.find_first_not_of("0123456789.") == text.npos) out.push_back(text);
  }
  return out;
}

TEST_F(MediaDocuments, VideoFilesAreSampledAsAskedFor) {
  const std::string path = made("v.mkv", {}, 250);  // ten seconds at 25
  using Times = std::vector<std::string>;
  const auto seen = [&](const Options& options, std::optional<double> fps,
                        std::optional<int64_t> max_frames) {
    Reranker reranker = open_or_die(demo_model(), options);
    Request request;
    request.query.texts = {"q"};
    request.documents = {video(path)};
    request.fps = fps;
    request.max_frames = max_frames;
    const auto explained = reranker.explain(request);
    EXPECT_TRUE(explained);
    EXPECT_EQ(explained->at(0).result.status, DocumentStatus::kOk)
        << explained->at(0).result.message;
    return times(explained->at(0).prompt);
  };
  // n = 10 of 250: indices 0 28 55 83 111 138 166 194 221 249, at 25 a second.
  EXPECT_EQ(seen({}, {}, {}), (Times{"0.6", "2.8", "5.0", "7.2", "9.4"}));
  EXPECT_EQ(seen({.max_frames = 4}, {}, {}), (Times{"1.7", "8.3"}));
  EXPECT_EQ(seen({}, {}, 4), (Times{"1.7", "8.3"}));
  EXPECT_EQ(seen({}, 2, {}).size(), 10u);
  EXPECT_EQ(seen({.fps = 2}, {}, {}).size(), 10u);
  // Eight of 250: 0 36 71 107 142 178 213 249.
  EXPECT_EQ(seen({.video_sampling = "uniform+ends"}, {}, {}), (Times{"0.7", "3.6", "6.4", "9.2"}));
  EXPECT_EQ(seen({.video_sampling = "uniform+ends", .num_frames = 3}, {}, {}),
            (Times{"2.5", "10.0"}));
}

TEST_F(MediaDocuments, VideosAreCachedWithHowTheyAreSampled) {
  const std::string path = made("v.mkv", {}, 100);
  Reranker without = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  Reranker reranker = open_or_die(demo_model(), {});
  const auto scored = [&](Reranker& r, std::optional<double> fps) {
    Request request;
    request.query.texts = {"a star"};
    request.documents = {video(path)};
    request.fps = fps;
    auto response = r.score(request);
    EXPECT_TRUE(response && response->results[0].scored());
    return *std::move(response);
  };
  for (const std::optional<double> fps : {std::optional<double>(), {2.0}}) {
    const float truth = scored(without, fps).results[0].log_odds;
    const Response first = scored(reranker, fps), second = scored(reranker, fps);
    EXPECT_EQ(first.results[0].log_odds, truth);
    EXPECT_EQ(first.usage.decoded_media, 1);
    EXPECT_EQ(second.results[0].log_odds, truth);
    EXPECT_EQ(second.usage.decoded_media, 0);
    EXPECT_EQ(second.usage.vision_batches, 0);
  }
}

TEST_F(MediaDocuments, OneVideoOfManyDocumentsIsDecodedOnce) {
  const std::string path = made("v.mkv", {}, 4);
  Reranker reranker = open_or_die(demo_model(), {.vision_cache_bytes = 0});
  Usage usage;
  const auto results = score(reranker, {video(path), video(path), video("file://" + path)}, &usage);
  EXPECT_EQ(results[0].log_odds, results[1].log_odds);
  EXPECT_EQ(results[0].log_odds, results[2].log_odds);
  EXPECT_EQ(usage.decoded_media, 2);  // by two names
}

#endif

}  // namespace
}  // namespace vlr
