#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "model/vision_encoder.h"
#include "tests/support/appendix_d.h"

namespace vlr {
namespace {

/// A table of side x side positions; the published models' side is 48.
VisionConfig config(int64_t side = 48) {
  VisionConfig c = *testing::appendix_d_config().vision_config;
  c.num_position_embeddings = side * side;
  return c;
}

VisionPositions grid(const VisionConfig& c, int64_t t, int64_t h, int64_t w) {
  VisionPositions p;
  p.append(c, t, h, w);
  return p;
}

/// Where in the table patch p looks, in rows and columns: the mean of its corners.
std::pair<double, double> place(const VisionPositions& p, size_t patch, int32_t side = 48) {
  double row = 0, column = 0;
  for (size_t k = 4 * patch; k < 4 * patch + 4; ++k) {
    row += double{p.pos_weights[k]} * (p.pos_indices[k] / side);
    column += double{p.pos_weights[k]} * (p.pos_indices[k] % side);
  }
  return {row, column};
}

TEST(VisionPositions, SixRows) {
  const VisionPositions p = grid(config(), 1, 6, 6);
  const double expected[] = {0, 9.4, 18.8, 28.2, 37.6, 47};
  for (size_t i = 0; i < p.rows.size(); ++i) {
    const auto [row, column] = place(p, i);
    EXPECT_NEAR(row, expected[p.rows[i]], 1e-5) << i;
    EXPECT_NEAR(column, expected[p.columns[i]], 1e-5) << i;
  }
}

TEST(VisionPositions, FullTableIsTakenAsItIs) {
  const VisionPositions p = grid(config(), 1, 48, 48);
  for (size_t i = 0; i < p.rows.size(); ++i) {
    EXPECT_EQ(p.pos_indices[4 * i], p.rows[i] * 48 + p.columns[i]);
    ASSERT_EQ(p.pos_weights[4 * i], 1) << i;
  }
}

TEST(VisionPositions, MoreRowsThanTheTable) {
  const VisionPositions p = grid(config(), 1, 50, 2);
  const auto row = [&](int32_t r) {
    const auto it = std::find(p.rows.begin(), p.rows.end(), r);
    return place(p, static_cast<size_t>(it - p.rows.begin())).first;
  };
  EXPECT_EQ(row(0), 0);
  EXPECT_NEAR(row(1), 0.95918369, 1e-6);
  EXPECT_NEAR(row(2), 1.9183674, 1e-6);
  EXPECT_NEAR(row(48), 47 - 0.95918369, 1e-5);
  EXPECT_EQ(row(49), 47);
}

// torch.linspace counts its second half from the end, which rounds differently.
TEST(VisionPositions, SecondHalfCountsFromTheEnd) {
  const VisionPositions p = grid(config(), 1, 2, 12);
  const float step = 47.0f / 11.0f;
  for (size_t i = 0; i < p.rows.size(); ++i) {
    if (p.rows[i] != 0) continue;
    const int32_t c = p.columns[i];
    const float f =
        c < 6 ? step * static_cast<float>(c) : 47.0f - step * static_cast<float>(11 - c);
    const float fraction = f - static_cast<float>(static_cast<int>(f));
    EXPECT_EQ(p.pos_weights[4 * i + 1], fraction) << "column " << c;
  }
}

TEST(VisionPositions, CornersAndWeights) {
  for (const auto& [h, w] : {std::pair<int64_t, int64_t>{2, 2}, {4, 6}, {62, 2}, {94, 100}}) {
    const VisionPositions p = grid(config(), 1, h, w);
    ASSERT_EQ(p.pos_indices.size(), static_cast<size_t>(4 * h * w));
    ASSERT_EQ(p.pos_weights.size(), static_cast<size_t>(4 * h * w));
    for (size_t i = 0; i < p.rows.size(); ++i) {
      const int32_t* corner = &p.pos_indices[4 * i];
      const float* weight = &p.pos_weights[4 * i];
      ASSERT_NEAR(double{weight[0]} + weight[1] + weight[2] + weight[3], 1, 1e-6);
      for (int k = 0; k < 4; ++k) {
        ASSERT_GE(weight[k], 0);
        ASSERT_GE(corner[k], 0);
        ASSERT_LT(corner[k], 48 * 48);
      }
      // (y0, x0) (y0, x1) (y1, x0) (y1, x1), neighbours or, at the last row or column, the same.
      ASSERT_EQ(corner[0] / 48, corner[1] / 48);
      ASSERT_EQ(corner[2] / 48, corner[3] / 48);
      ASSERT_EQ(corner[0] % 48, corner[2] % 48);
      ASSERT_EQ(corner[1] % 48, corner[3] % 48);
      ASSERT_EQ(corner[2] / 48, std::min(corner[0] / 48 + 1, 47));
      ASSERT_EQ(corner[1] % 48, std::min(corner[0] % 48 + 1, 47));
    }
  }
}

TEST(VisionPositions, BlocksOfTwoByTwo) {
  const VisionPositions p = grid(config(6), 1, 4, 6);
  const std::vector<int32_t> rows = {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1,
                                     2, 2, 3, 3, 2, 2, 3, 3, 2, 2, 3, 3};
  const std::vector<int32_t> columns = {0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5,
                                        0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5};
  EXPECT_EQ(p.rows, rows);
  EXPECT_EQ(p.columns, columns);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [row, column] = place(p, i, 6);
    EXPECT_NEAR(row, rows[i] * 5 / 3.0, 1e-6);
    EXPECT_NEAR(column, columns[i], 1e-6);
  }
}

void expect_segment(const ops::AttentionSegment& s, int32_t begin, int32_t len) {
  EXPECT_EQ(s.q_begin, begin);
  EXPECT_EQ(s.k_begin, begin);
  EXPECT_EQ(s.q_len, len);
  EXPECT_EQ(s.k_len, len);
  EXPECT_EQ(s.prefix_len, 0);
}

TEST(VisionPositions, FramesOfAVideoAreAlikeAndApart) {
  const VisionPositions one = grid(config(), 1, 4, 4);
  const VisionPositions video = grid(config(), 3, 4, 4);
  ASSERT_EQ(video.segments.size(), 3u);
  for (int32_t t = 0; t < 3; ++t)
    expect_segment(video.segments[static_cast<size_t>(t)], 16 * t, 16);
  for (size_t i = 0; i < video.rows.size(); ++i) {
    EXPECT_EQ(video.rows[i], one.rows[i % 16]);
    EXPECT_EQ(video.columns[i], one.columns[i % 16]);
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_EQ(video.pos_indices[4 * i + k], one.pos_indices[4 * (i % 16) + k]);
      EXPECT_EQ(video.pos_weights[4 * i + k], one.pos_weights[4 * (i % 16) + k]);
    }
  }
}

TEST(VisionPositions, PicturesStandOneAfterTheOther) {
  VisionPositions p = grid(config(), 1, 2, 4);
  p.append(config(), 2, 4, 2);
  ASSERT_EQ(p.segments.size(), 3u);
  expect_segment(p.segments[0], 0, 8);
  expect_segment(p.segments[1], 8, 8);
  expect_segment(p.segments[2], 16, 8);
  const VisionPositions second = grid(config(), 2, 4, 2);
  EXPECT_TRUE(std::equal(second.rows.begin(), second.rows.end(), p.rows.begin() + 8));
  EXPECT_TRUE(
      std::equal(second.pos_weights.begin(), second.pos_weights.end(), p.pos_weights.begin() + 32));
}

}  // namespace
}  // namespace vlr
