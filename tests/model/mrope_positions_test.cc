#include "model/mrope_positions.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/appendix_d.h"

namespace vlr {
namespace {

using Ints = std::vector<int32_t>;

constexpr int32_t kImage = 120, kVideo = 121, kStart = 118, kEnd = 119;

Result<SequencePositions> positions(const Ints& ids, const std::vector<VisualRun>& images,
                                    const std::vector<VisualRun>& videos) {
  return mrope_positions(ids, testing::appendix_d_config(), images, videos);
}

Ints axis(const SequencePositions& p, size_t index) {
  const size_t count = p.visual_index.size();
  EXPECT_EQ(p.positions.size(), 3 * count);
  const auto begin = p.positions.begin() + static_cast<std::ptrdiff_t>(index * count);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

// Both the positions and the prompt are those of Qwen3VLModel.get_rope_index, transformers 4.57.
TEST(MropePositions, VideoThenImage) {
  const Ints ids = {9,      10,   11,     27,     kStart, kVideo, kVideo, kVideo,
                    kVideo, kEnd, 28,     kStart, kVideo, kVideo, kVideo, kVideo,
                    kEnd,   12,   kStart, kImage, kImage, kImage, kImage, kImage,
                    kImage, kEnd, 13,     14,     15,     16,     17};
  const auto p = positions(ids, {{2, 3}}, {{2, 2}, {2, 2}});
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(axis(*p, 0), (Ints{0,  1,  2,  3,  4,  5,  5,  5,  5,  7,  8,  9,  10, 10, 10, 10,
                               12, 13, 14, 15, 15, 15, 15, 15, 15, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(axis(*p, 1), (Ints{0,  1,  2,  3,  4,  5,  5,  6,  6,  7,  8,  9,  10, 10, 11, 11,
                               12, 13, 14, 15, 15, 15, 16, 16, 16, 18, 19, 20, 21, 22, 23}));
  EXPECT_EQ(axis(*p, 2), (Ints{0,  1,  2,  3,  4,  5,  6,  5,  6,  7,  8,  9,  10, 11, 10, 11,
                               12, 13, 14, 15, 16, 17, 15, 16, 17, 18, 19, 20, 21, 22, 23}));
  // Features stand image first, though the prompt shows the video first.
  EXPECT_EQ(p->visual_index, (Ints{-1, -1, -1, -1, -1, 6, 7, 8, 9, -1, -1, -1, 10, 11, 12, 13,
                                   -1, -1, -1, 0,  1,  2, 3, 4, 5, -1, -1, -1, -1, -1, -1}));
}

TEST(MropePositions, TextIsOneDimensional) {
  const auto p = positions({5, 6, 7}, {}, {});
  ASSERT_TRUE(p);
  for (size_t a = 0; a < 3; ++a) EXPECT_EQ(axis(*p, a), (Ints{0, 1, 2}));
  EXPECT_EQ(p->visual_index, (Ints{-1, -1, -1}));
}

TEST(MropePositions, NothingInNothingOut) {
  const auto p = positions({}, {}, {});
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->positions.empty());
  EXPECT_TRUE(p->visual_index.empty());
}

// After a picture the positions go on behind its longer side.
TEST(MropePositions, LongPictures) {
  const auto wide = positions({kImage, kImage, kImage, kImage, 5}, {{1, 4}}, {});
  ASSERT_TRUE(wide);
  EXPECT_EQ(axis(*wide, 0), (Ints{0, 0, 0, 0, 4}));
  EXPECT_EQ(axis(*wide, 1), (Ints{0, 0, 0, 0, 4}));
  EXPECT_EQ(axis(*wide, 2), (Ints{0, 1, 2, 3, 4}));
  const auto tall = positions({5, kImage, kImage, kImage, 5}, {{3, 1}}, {});
  ASSERT_TRUE(tall);
  EXPECT_EQ(axis(*tall, 0), (Ints{0, 1, 1, 1, 4}));
  EXPECT_EQ(axis(*tall, 1), (Ints{0, 1, 2, 3, 4}));
  EXPECT_EQ(axis(*tall, 2), (Ints{0, 1, 1, 1, 4}));
}

TEST(MropePositions, PicturesSideBySide) {
  const auto p = positions({kImage, kImage, kImage, kVideo}, {{1, 2}, {1, 1}}, {{1, 1}});
  ASSERT_TRUE(p);
  EXPECT_EQ(axis(*p, 0), (Ints{0, 0, 2, 3}));
  EXPECT_EQ(axis(*p, 2), (Ints{0, 1, 2, 3}));
  EXPECT_EQ(p->visual_index, (Ints{0, 1, 2, 3}));
}

// Text that spells a placeholder, in a prompt whose pictures are all in their places.
TEST(MropePositions, SurplusPlaceholdersAreText) {
  const auto p = positions({kImage, kImage, kVideo, 5}, {{1, 1}}, {});
  ASSERT_TRUE(p);
  EXPECT_EQ(axis(*p, 0), (Ints{0, 1, 2, 3}));
  EXPECT_EQ(p->visual_index, (Ints{0, -1, -1, -1}));
}

TEST(MropePositions, RefusesRunsCutShort) {
  const auto at_the_end = positions({5, kImage, kImage, kImage}, {{2, 2}}, {});
  ASSERT_FALSE(at_the_end);
  EXPECT_EQ(at_the_end.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(at_the_end.error().message(),
            "prompt: a picture of 2 x 2 tokens has 3 placeholders in a row");
  const auto by_text = positions({kVideo, 5, kVideo}, {}, {{1, 2}});
  ASSERT_FALSE(by_text);
  EXPECT_EQ(by_text.error().message(),
            "prompt: a picture of 1 x 2 tokens has 1 placeholders in a row");
  EXPECT_FALSE(positions({kVideo, kImage}, {}, {{1, 2}}));
}

TEST(MropePositions, RefusesRunsLeftOver) {
  const auto image = positions({5, kImage}, {{1, 1}, {1, 1}}, {});
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(image.error().message(), "prompt: 2 pictures, placeholders for 1");
  EXPECT_FALSE(positions({5, kImage}, {{1, 1}}, {{1, 1}}));
  EXPECT_FALSE(positions({}, {{1, 1}}, {}));
}

TextConfig text_config(int64_t head_dim, std::array<int64_t, 3> section) {
  TextConfig c = testing::appendix_d_config().text_config;
  c.head_dim = head_dim;
  c.mrope_section = section;
  return c;
}

TEST(TextRotaryPairs, PublishedSection) {
  const RotaryPairs pairs = text_rotary_pairs(text_config(128, {24, 20, 20}));
  ASSERT_EQ(pairs.axis.size(), 64u);
  ASSERT_EQ(pairs.inv_freq.size(), 64u);
  for (int32_t j = 0; j < 64; ++j) {
    EXPECT_EQ(pairs.axis[static_cast<size_t>(j)], j < 60 ? j % 3 : 0) << j;
  }
  EXPECT_EQ(std::ranges::count(pairs.axis, 0), 24);
  EXPECT_EQ(std::ranges::count(pairs.axis, 1), 20);
  EXPECT_EQ(std::ranges::count(pairs.axis, 2), 20);
  EXPECT_EQ(pairs.inv_freq[0], 1);
  EXPECT_FLOAT_EQ(pairs.inv_freq[32], 4.4721360e-4f);  // 5e6 ^ -1/2
  EXPECT_TRUE(std::ranges::is_sorted(pairs.inv_freq, std::greater<>()));
}

TEST(TextRotaryPairs, TinySection) {
  const RotaryPairs pairs = text_rotary_pairs(text_config(32, {6, 5, 5}));
  EXPECT_EQ(pairs.axis, (Ints{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0}));
  // Angles of position 15, transformers 4.57.
  const std::vector<float> angles = {15,         5.7201265f, 2.1813232f,
                                     0.8318296f, 0.3172114f, 0.1209659f};
  for (size_t j = 0; j < angles.size(); ++j) {
    EXPECT_NEAR(15 * pairs.inv_freq[j], angles[j], 1e-6) << j;
  }
}

// Sections of different lengths: the shorter one's places go to time.
TEST(TextRotaryPairs, UnevenSection) {
  EXPECT_EQ(text_rotary_pairs(text_config(16, {4, 3, 1})).axis, (Ints{0, 1, 2, 0, 1, 0, 0, 1}));
}

TEST(VisionRotaryPairs, RowsThenColumns) {
  VisionConfig c = *testing::appendix_d_config().vision_config;
  for (const int64_t head_dim : {16, 64, 72}) {
    c.hidden_size = head_dim * c.num_heads;
    const RotaryPairs pairs = vision_rotary_pairs(c);
    const auto half = static_cast<size_t>(head_dim / 4);
    ASSERT_EQ(pairs.axis.size(), 2 * half);
    for (size_t j = 0; j < 2 * half; ++j) {
      EXPECT_EQ(pairs.axis[j], j < half ? 0 : 1);
      EXPECT_EQ(pairs.inv_freq[j], pairs.inv_freq[j % half]);
    }
    EXPECT_EQ(pairs.inv_freq[0], 1);
    // inv_freq[m] = 10000 ^ (-m / half)
    EXPECT_NEAR(pairs.inv_freq[half / 2],
                std::pow(1e4, -static_cast<double>(half / 2) / static_cast<double>(half)), 1e-8);
  }
}

}  // namespace
}  // namespace vlr
