#include "multimodal/resize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>

#include "multimodal/weighted_rows.h"
#include "tests/multimodal/pack.h"

namespace vlr {

static void PrintTo(const Size& s, std::ostream* out) { *out << s.height << "x" << s.width; }

namespace {

struct SizeCase {
  Size in, with_1800_tokens, with_1280_tokens;
};

TEST(SmartResize, PicturesOfTheReference) {
  constexpr SizeCase kCases[] = {
      {{480, 640}, {480, 640}, {480, 640}},
      {{720, 1280}, {704, 1280}, {704, 1280}},
      {{1080, 1920}, {992, 1792}, {832, 1504}},
      {{1365, 2048}, {1088, 1632}, {928, 1376}},
      {{3000, 4000}, {1152, 1536}, {960, 1312}},
      {{1344, 1372}, {1312, 1344}, {1120, 1152}},
      {{1, 1}, {64, 64}, {64, 64}},
      {{16, 16}, {64, 64}, {64, 64}},
      {{32, 32}, {64, 64}, {64, 64}},
      {{48, 48}, {64, 64}, {64, 64}},
      {{80, 48}, {64, 64}, {64, 64}},
      {{100, 3000}, {96, 3008}, {96, 3008}},
      {{10, 2000}, {32, 1984}, {32, 1984}},
      {{50, 6400}, {64, 6400}, {64, 6400}},
      {{6400, 40}, {6400, 32}, {6400, 32}},
  };
  for (const SizeCase& c : kCases) {
    EXPECT_EQ(smart_resize(c.in.height, c.in.width, 32, 4096, 1800 * 1024).value(),
              c.with_1800_tokens)
        << c.in.height << "x" << c.in.width;
    EXPECT_EQ(smart_resize(c.in.height, c.in.width, 32, 4096, 1280 * 1024).value(),
              c.with_1280_tokens)
        << c.in.height << "x" << c.in.width;
  }
}

TEST(SmartResize, FramesOfVideoFiles) {
  constexpr Size kCases[][2] = {{{720, 1280}, {640, 1152}},
                                {{1080, 1920}, {640, 1152}},
                                {{360, 640}, {352, 640}},
                                {{240, 320}, {320, 448}},
                                {{480, 854}, {480, 864}}};
  for (const auto& [in, out] : kCases)
    EXPECT_EQ(smart_resize(in.height, in.width, 32, 131072, 786432).value(), out);
}

TEST(SmartResize, Refuses) {
  EXPECT_EQ(smart_resize(10, 2001, 32, 4096, 1e6).error().message(),
            "smart_resize: height 10 and width 2001: one is more than 200 times the other");
  EXPECT_EQ(smart_resize(0, 5, 32, 4096, 1e6).error().code(), Code::kInvalidArgument);
  // Shrinking may leave nothing of the short side.
  EXPECT_THAT(smart_resize(40, 6400, 32, 0, 100000).error().message(),
              testing::HasSubstr("leaves no multiple of 32"));
}

// One channel, 6 rows of 8 pixels; the pictures below have it in all three.
constexpr uint8_t kInput[6][8] = {
    {97, 30, 112, 140, 64, 65, 137, 218},   {73, 232, 183, 133, 202, 112, 113, 228},
    {242, 220, 52, 237, 215, 22, 129, 105}, {241, 4, 251, 181, 212, 224, 208, 125},
    {48, 77, 192, 196, 224, 11, 232, 207},  {80, 92, 211, 231, 99, 105, 218, 95}};

Image input() {
  Image image{8, 6, {}};
  for (const auto& row : kInput) {
    for (const uint8_t v : row) image.rgb.insert(image.rgb.end(), 3, v);
  }
  return image;
}

// The values of one channel, all three being equal.
std::vector<int> channel(const Result<Image>& image) {
  std::vector<int> out;
  for (size_t i = 0; i < image->rgb.size(); i += 3) {
    EXPECT_EQ(image->rgb[i], image->rgb[i + 1]);
    EXPECT_EQ(image->rgb[i], image->rgb[i + 2]);
    out.push_back(image->rgb[i]);
  }
  return out;
}

std::vector<int> rows(const std::vector<int>& all, size_t width,
                      std::initializer_list<size_t> which) {
  std::vector<int> out;
  for (const size_t r : which) out.insert(out.end(), &all[r * width], &all[r * width] + width);
  return out;
}

using Values = std::vector<int>;

TEST(ResizePillow, KnownValues) {
  EXPECT_EQ(channel(resize_pillow_bicubic(input(), {4, 5})),
            (Values{87,  132, 122, 94,  189, 205, 150, 204, 106, 135,
                    119, 160, 211, 172, 176, 66,  181, 180, 115, 177}));
  EXPECT_EQ(channel(resize_pillow_bicubic(input(), {3, 4})),
            (Values{122, 143, 108, 157, 165, 180, 173, 144, 84, 199, 140, 175}));
  EXPECT_EQ(rows(channel(resize_pillow_bicubic(input(), {9, 12})), 12, {0, 8}),
            (Values{103, 55, 23,  94,  135, 132, 65,  48, 71,  125, 185, 222,
                    81,  81, 108, 197, 239, 217, 107, 86, 126, 213, 155, 79}));
}

TEST(ResizeTorchvision, KnownValues) {
  EXPECT_EQ(channel(resize_torchvision_bicubic(input(), {4, 5})),
            (Values{87,  132, 122, 94,  190, 205, 150, 204, 106, 136,
                    119, 161, 211, 172, 176, 66,  181, 180, 115, 176}));
  EXPECT_EQ(channel(resize_torchvision_bicubic(input(), {3, 4})),
            (Values{123, 144, 108, 157, 165, 180, 173, 144, 84, 199, 140, 176}));
  EXPECT_EQ(rows(channel(resize_torchvision_bicubic(input(), {9, 12})), 12, {0, 8}),
            (Values{104, 55, 22,  94,  135, 132, 65,  48, 71,  125, 185, 223,
                    81,  80, 108, 197, 239, 217, 107, 85, 127, 212, 155, 79}));
}

TEST(Resize, OneDirectionOnly) {
  const Values expected = {
      99,  17,  107, 140, 55,  62,  139, 217, 76,  126, 153, 131, 128, 92,  125, 230, 92,  245,
      169, 146, 212, 102, 113, 214, 221, 236, 57,  228, 215, 22,  122, 119, 255, 107, 147, 215,
      214, 131, 168, 102, 217, 0,   255, 179, 215, 209, 216, 137, 69,  65,  200, 192, 230, 34,
      231, 204, 54,  89,  199, 215, 159, 48,  226, 153, 82,  93,  212, 233, 91,  111, 217, 88};
  EXPECT_EQ(channel(resize_pillow_bicubic(input(), {9, 8})), expected);
  EXPECT_EQ(channel(resize_torchvision_bicubic(input(), {9, 8})), expected);
  EXPECT_EQ(resize_pillow_bicubic(input(), {6, 8})->rgb, input().rgb);
  EXPECT_EQ(resize_torchvision_bicubic(input(), {6, 8})->rgb, input().rgb);
}

// Outputs of Pillow 12.3.0 and torchvision 0.26.0 for pictures of noise and shapes.
TEST(Resize, ReferenceOutputs) {
  Pack pack(VLR_TEST_DATA_DIR "/resize.pack");
  int64_t num_values = 0, num_off = 0;
  int cases = 0;
  for (; !pack.done(); ++cases) {
    Size in, out;
    pack.line() >> in.height >> in.width >> out.height >> out.width;
    const Image image{in.width, in.height, pack.take(3 * in.width * in.height)};
    const std::vector<uint8_t> pillow = pack.take(3 * out.width * out.height);
    const std::vector<uint8_t> torchvision = pack.take(3 * out.width * out.height);

    EXPECT_EQ(resize_pillow_bicubic(image, out)->rgb, pillow) << "case " << cases;
    const Result<Image> ours = resize_torchvision_bicubic(image, out);
    ASSERT_EQ(ours->rgb.size(), torchvision.size());
    for (size_t i = 0; i < torchvision.size(); ++i) {
      const int distance = std::abs(ours->rgb[i] - torchvision[i]);
      ASSERT_LE(distance, 1) << "case " << cases << ", value " << i;
      num_off += distance;
      ++num_values;
    }
  }
  EXPECT_EQ(cases, 5);
  EXPECT_LE(static_cast<double>(num_off), 1e-3 * static_cast<double>(num_values));
}

// Pillow's filter once more, pixel by pixel with 64-bit sums.
Image plain_pass(const Image& in, int64_t out_width) {
  Image out{out_width, in.height,
            std::vector<uint8_t>(static_cast<size_t>(3 * out_width * in.height))};
  const double scale = static_cast<double>(in.width) / static_cast<double>(out_width),
               wider = std::max(scale, 1.0);
  const auto cubic = [](double x) {
    x = std::abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  };
  for (int64_t o = 0; o < out_width; ++o) {
    const double center = (static_cast<double>(o) + 0.5) * scale;
    const int64_t begin = std::max<int64_t>(0, static_cast<int64_t>(center - 2 * wider + 0.5));
    const int64_t end = std::min(in.width, static_cast<int64_t>(center + 2 * wider + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t k = begin; k < end; ++k) {
      weights.push_back(cubic((static_cast<double>(k) - center + 0.5) * (1 / wider)));
      sum += weights.back();
    }
    for (int64_t y = 0; y < in.height; ++y) {
      for (int64_t c = 0; c < 3; ++c) {
        int64_t total = 1 << 21;
        for (int64_t k = begin; k < end; ++k) {
          const double w = weights[static_cast<size_t>(k - begin)] / sum * (1 << 22);
          total += static_cast<int64_t>(w < 0 ? w - 0.5 : w + 0.5) *
                   in.rgb[static_cast<size_t>(3 * (y * in.width + k) + c)];
        }
        out.rgb[static_cast<size_t>(3 * (y * out_width + o) + c)] =
            static_cast<uint8_t>(std::clamp<int64_t>(total >> 22, 0, 255));
      }
    }
  }
  return out;
}

Image transposed(const Image& in) {
  Image out{in.height, in.width, std::vector<uint8_t>(in.rgb.size())};
  for (int64_t y = 0; y < in.height; ++y) {
    for (int64_t x = 0; x < in.width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        out.rgb[static_cast<size_t>(3 * (x * in.height + y) + c)] =
            in.rgb[static_cast<size_t>(3 * (y * in.width + x) + c)];
      }
    }
  }
  return out;
}

// Black and white noise overshoots the most; sizes below, at and beyond a vector and a tile of 32
// rows.
TEST(ResizePillow, EqualsThePlainLoops) {
  std::mt19937 random(11);
  for (const auto& [h, w, to_h, to_w] : {std::array<int64_t, 4>{1, 1, 64, 64},
                                         {5, 3, 2, 7},
                                         {31, 33, 32, 64},
                                         {32, 17, 96, 5},
                                         {100, 65, 33, 40},
                                         {67, 300, 67, 11},
                                         {3, 2000, 32, 64},
                                         {2000, 9, 64, 32}}) {
    Image image{w, h, std::vector<uint8_t>(static_cast<size_t>(3 * w * h))};
    for (uint8_t& v : image.rgb) v = random() % 2 ? 255 : 0;
    Image expected = to_w == w ? image : plain_pass(image, to_w);
    if (to_h != h) expected = transposed(plain_pass(transposed(expected), to_h));
    const Result<Image> got = resize_pillow_bicubic(image, {to_h, to_w});
    ASSERT_TRUE(got.ok());
    EXPECT_EQ(got->rgb, expected.rgb) << h << "x" << w << " to " << to_h << "x" << to_w;
  }
}

// However few rows come at a time.
TEST(ResizePillow, RowsAsTheyCome) {
  std::mt19937 random(12);
  Image image{70, 150, std::vector<uint8_t>(3 * 70 * 150)};
  for (uint8_t& v : image.rgb) v = static_cast<uint8_t>(random());
  for (const Size size : {Size{33, 40}, {150, 40}, {400, 70}, {33, 70}, {150, 70}, {300, 200}}) {
    const Result<Image> expected = resize_pillow_bicubic(image, size);
    for (const size_t most : {1u, 7u, 40u}) {
      ImageSink out;
      const std::unique_ptr<RowSink> sink = pillow_bicubic_sink(size, out);
      ASSERT_TRUE(sink->start(image.width, image.height).ok());
      const size_t row = 3 * 70;
      for (std::span<const uint8_t> left(image.rgb); !left.empty();) {
        const std::span<uint8_t> buffer = sink->buffer();
        const size_t rows = std::min({left.size() / row, buffer.size() / row, most});
        ASSERT_GE(rows, 1u);
        std::copy_n(left.begin(), rows * row, buffer.begin());
        sink->put(static_cast<int64_t>(rows));
        left = left.subspan(rows * row);
      }
      EXPECT_EQ(out.take().rgb, expected->rgb) << size.height << "x" << size.width << ", " << most;
    }
  }
}

TEST(Resize, RefusesImpossibleSizes) {
  EXPECT_EQ(resize_pillow_bicubic(input(), {0, 4}).error().message(),
            "resize_pillow_bicubic: to 4x0 pixels");
  EXPECT_EQ(resize_torchvision_bicubic(input(), {4, -1}).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(resize_pillow_bicubic(Image{3, 3, {}}, {4, 4}).error().message(),
            "resize_pillow_bicubic: a picture of 3x3 pixels with 0 bytes");
}

TEST(WeightPair, HalvesAddUp) {
  for (const int32_t q :
       {0, 1, -1, 2047, 2048, -2048, -2049, 4095, 4096, 4'194'304, -700'000, 5'000'000}) {
    const media::WeightPair p = media::pack_weights(q, -q);
    EXPECT_EQ(static_cast<int16_t>(p.high) * 4096 + static_cast<int16_t>(p.low), q);
    EXPECT_EQ((p.high >> 16) * 4096 + (p.low >> 16), -q);
  }
}

}  // namespace
}  // namespace vlr
