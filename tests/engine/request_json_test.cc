// The official request as JSON: what upstream takes for what, and what is refused.
#include "engine/api/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vlr {
namespace {

using ::testing::HasSubstr;

Content document(const std::string& side) {
  const auto parsed = parse_request(R"({"query": {}, "documents": [)" + side + "]}");
  EXPECT_TRUE(parsed) << side << ": " << parsed.error().message();
  return parsed ? parsed->request.documents.at(0) : Content{};
}

/// "file a.mp4", "frames a.png b.png", one a video.
std::vector<std::string> videos_of(const std::string& value) {
  const Content c = document(R"({"video": )" + value + "}");
  EXPECT_EQ(c.error, "");
  std::vector<std::string> out;
  for (const Video& v : c.videos) {
    std::string& text = out.emplace_back(v.file ? "file " + v.file->path : "frames");
    EXPECT_TRUE(!v.file || v.frames.empty());
    for (const Media& m : v.frames) text += " " + m.path;
  }
  return out;
}

using Videos = std::vector<std::string>;

TEST(RequestJson, WhatAVideoIs) {
  EXPECT_EQ(videos_of(R"("a.mp4")"), Videos{"file a.mp4"});
  EXPECT_EQ(videos_of(R"("a.gif")"),
            Videos{"file a.gif"});  // a string is a file, whatever its name
  EXPECT_EQ(videos_of(R"(["a.PNG", "b.mp4"])"), Videos{"frames a.PNG b.mp4"});
  EXPECT_EQ(videos_of(R"(["data:image/png;base64,AA", "b"])"),
            Videos{"frames data:image/png;base64,AA b"});
  EXPECT_EQ(videos_of(R"(["a.mp4", "b.mkv"])"), (Videos{"file a.mp4", "file b.mkv"}));
  EXPECT_EQ(videos_of(R"(["a.mp4", ["a.png", "b.png"]])"),
            (Videos{"file a.mp4", "frames a.png b.png"}));
  EXPECT_EQ(videos_of(R"([["a.tif"], ["b.png"]])"), (Videos{"frames a.tif", "frames b.png"}));
  EXPECT_EQ(videos_of("[]"), Videos{});
  EXPECT_EQ(videos_of("null"), Videos{});
  EXPECT_THAT(document(R"({"video": 3})").error, HasSubstr("got number"));
  EXPECT_THAT(document(R"({"video": [3]})").error, HasSubstr("got number"));
  EXPECT_THAT(document(R"({"video": [["a.png", 3]]})").error, HasSubstr("a list with number"));
}

TEST(RequestJson, FramesPerRequest) {
  const auto parse = [](const std::string& members) {
    return parse_request("{" + members + R"(, "query": {}, "documents": []})");
  };
  const auto parsed = parse(R"("fps": 2.5, "max_frames": 8)");
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->request.fps, 2.5);
  EXPECT_EQ(parsed->request.max_frames, 8);
  const auto neither = parse(R"("fps": null, "max_frames": null)");
  ASSERT_TRUE(neither);
  EXPECT_FALSE(neither->request.fps || neither->request.max_frames);
  for (const char* bad : {R"("fps": 0)", R"("fps": -1)", R"("fps": "1")", R"("max_frames": 0)",
                          R"("max_frames": 1.5)", R"("max_frames": "8")"}) {
    const auto refused = parse(bad);
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument) << bad;
    EXPECT_THAT(refused.error().message(), HasSubstr("above 0, got")) << bad;
  }
}

}  // namespace
}  // namespace vlr
