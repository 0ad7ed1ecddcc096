#include "multimodal/resize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <new>
#include <utility>
#include <vector>

#include "multimodal/weighted_rows.h"

namespace vlr {
namespace {

using media::WeightPair;

// Cubic convolution with a = -0.5 (Keys 1981).
template <class T>
T bicubic(T x) {
  constexpr T a = T(-0.5);
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// The input elements that one output element is a weighted sum of.
struct Window {
  int64_t first = 0;
  int64_t count = 0;
  int64_t weights_at = 0;  // where its weights start in the table
};

// Windows and weights of one pass from `in` to `out` elements. When shrinking, the filter is as
// much wider as the picture gets smaller. T is double for Pillow and float for torchvision; the
// order of operations is theirs. take(weights, window) stores the weights of one window, which sum
// to 1.
template <class T, class Take>
std::vector<Window> make_windows(int64_t in, int64_t out, Take take) {
  const T scale = static_cast<T>(in) / static_cast<T>(out);
  const T filter_scale = std::max(scale, T(1)), support = 2 * filter_scale,
          inverse = 1 / filter_scale;
  std::vector<Window> windows(static_cast<size_t>(out));
  std::vector<T> weights;
  for (int64_t o = 0; o < out; ++o) {
    Window& window = windows[static_cast<size_t>(o)];
    const T center = (static_cast<T>(o) + T(0.5)) * scale;
    window.first = std::max<int64_t>(static_cast<int64_t>(center - support + T(0.5)), 0);
    window.count = std::min(static_cast<int64_t>(center + support + T(0.5)), in) - window.first;
    weights.resize(static_cast<size_t>(window.count));
    T sum = 0;
    for (int64_t k = 0; k < window.count; ++k) {
      const T w = bicubic((static_cast<T>(k + window.first) - center + T(0.5)) * inverse);
      weights[static_cast<size_t>(k)] = w;
      sum += w;
    }
    for (T& w : weights) w /= sum;
    take(weights, window);
  }
  return windows;
}

struct FixedPoint {
  std::vector<Window> windows;
  std::vector<WeightPair> weights;  // two taps each
};

FixedPoint fixed_point(int64_t in, int64_t out) {
  FixedPoint f;
  f.windows =
      make_windows<double>(in, out, [&](const std::vector<double>& weights, Window& window) {
        const auto q = [&](size_t k) {
          if (k >= weights.size()) return int32_t{0};
          return static_cast<int32_t>(weights[k] * (1 << media::kWeightBits) +
                                      (weights[k] < 0 ? -0.5 : 0.5));
        };
        window.weights_at = static_cast<int64_t>(f.weights.size());
        for (size_t k = 0; k < weights.size(); k += 2)
          f.weights.push_back(media::pack_weights(q(k), q(k + 1)));
      });
  return f;
}

void apply(const FixedPoint& f, const Window& w, const uint8_t* rows, int64_t stride, int64_t n,
           uint8_t* out) {
  const std::span<const WeightPair> weights(f.weights);
  media::weighted_rows(
      rows + w.first * stride, stride, w.count,
      weights.subspan(static_cast<size_t>(w.weights_at), static_cast<size_t>((w.count + 1) / 2)), n,
      out);
}

Image resize_rows_8bit(const Image& image, int64_t height) {
  const int64_t row = 3 * image.width;
  Image out{image.width, height, std::vector<uint8_t>(static_cast<size_t>(row * height))};
  const FixedPoint f = fixed_point(image.height, height);
  for (int64_t y = 0; y < height; ++y) {
    apply(f, f.windows[static_cast<size_t>(y)], image.rgb.data(), row, row,
          out.rgb.data() + y * row);
  }
  return out;
}

// Columns become rows: 32 rows of the picture at a time are turned into one "row" of 96 bytes for
// every pixel column (3 colours x 32), which the same inner loop then weighs.
Image resize_columns_8bit(const Image& image, int64_t width) {
  constexpr int64_t kTile = 32, kHalf = 16, kLanes = 3 * kTile;
  const int64_t in_row = 3 * image.width, out_row = 3 * width;
  Image out{width, image.height, std::vector<uint8_t>(static_cast<size_t>(out_row * image.height))};
  const FixedPoint f = fixed_point(image.width, width);
  std::vector<uint8_t> in_tile(static_cast<size_t>(in_row * kTile));    // [image.width, 3, kTile]
  std::vector<uint8_t> out_tile(static_cast<size_t>(out_row * kTile));  // [width, 3, kTile]
  std::vector<uint8_t> surplus(static_cast<size_t>(out_row));  // takes rows below the picture
  for (int64_t top = 0; top < image.height; top += kTile) {
    for (int64_t half = 0; half < kTile; half += kHalf) {
      std::array<const uint8_t*, kHalf> rows;
      for (int64_t i = 0; i < kHalf; ++i) {
        const int64_t y = std::min(top + half + i, image.height - 1);
        rows[static_cast<size_t>(i)] = image.rgb.data() + y * in_row;
      }
      media::rows_to_columns(rows.data(), in_row, in_tile.data() + half, kTile);
    }
    for (int64_t x = 0; x < width; ++x) {
      apply(f, f.windows[static_cast<size_t>(x)], in_tile.data(), kLanes, kLanes,
            out_tile.data() + x * kLanes);
    }
    for (int64_t half = 0; half < kTile; half += kHalf) {
      std::array<uint8_t*, kHalf> rows;
      for (int64_t i = 0; i < kHalf; ++i) {
        const int64_t y = top + half + i;
        rows[static_cast<size_t>(i)] =
            y < image.height ? out.rgb.data() + y * out_row : surplus.data();
      }
      media::columns_to_rows(out_tile.data() + half, kTile, out_row, rows.data());
    }
  }
  return out;
}

struct Floating {
  std::vector<Window> windows;
  std::vector<float> weights;
};

Floating floating(int64_t in, int64_t out) {
  Floating f;
  f.windows = make_windows<float>(in, out, [&](const std::vector<float>& weights, Window& window) {
    window.weights_at = static_cast<int64_t>(f.weights.size());
    f.weights.insert(f.weights.end(), weights.begin(), weights.end());
  });
  return f;
}

Status check(const Image& image, Size size, const char* who) {
  if (image.width < 1 || image.height < 1 ||
      image.rgb.size() != static_cast<size_t>(3 * image.width * image.height)) {
    return {Code::kInvalidArgument, fmt::format("{}: a picture of {}x{} pixels with {} bytes", who,
                                                image.width, image.height, image.rgb.size())};
  }
  constexpr int64_t kMaxSide = int64_t{1} << 31;
  if (size.width < 1 || size.height < 1 || size.width > kMaxSide || size.height > kMaxSide) {
    return {Code::kInvalidArgument,
            fmt::format("{}: to {}x{} pixels", who, size.width, size.height)};
  }
  return {};
}

}  // namespace

Result<Size> smart_resize(int64_t height, int64_t width, int64_t factor, double min_pixels,
                          double max_pixels) {
  if (height < 1 || width < 1 || factor < 1) {
    return {Code::kInvalidArgument,
            fmt::format("smart_resize: {}x{} by {}", height, width, factor)};
  }
  const auto h = static_cast<double>(height), w = static_cast<double>(width),
             f = static_cast<double>(factor);
  if (constexpr double kMaxRatio = 200; std::max(h, w) / std::min(h, w) > kMaxRatio) {
    return {Code::kInvalidArgument,
            fmt::format("smart_resize: height {} and width {}: one is more than {} times the other",
                        height, width, kMaxRatio)};
  }
  // nearbyint() rounds halves to even.
  double new_h = std::max(f, f * std::nearbyint(h / f)),
         new_w = std::max(f, f * std::nearbyint(w / f));
  if (new_h * new_w > max_pixels) {
    const double beta = std::sqrt(h * w / max_pixels);
    new_h = f * std::floor(h / beta / f);
    new_w = f * std::floor(w / beta / f);
  } else if (new_h * new_w < min_pixels) {
    const double beta = std::sqrt(min_pixels / (h * w));
    new_h = f * std::ceil(h * beta / f);
    new_w = f * std::ceil(w * beta / f);
  }
  if (!(new_h >= 1 && new_w >= 1)) {
    return {Code::kInvalidArgument,
            fmt::format("smart_resize: {}x{} within {} pixels leaves no multiple of {}", height,
                        width, max_pixels, factor)};
  }
  return Size{static_cast<int64_t>(new_h), static_cast<int64_t>(new_w)};
}

Result<Image> resize_pillow_bicubic(const Image& image, Size size) try {
  VLR_RETURN_IF_ERROR(check(image, size, "resize_pillow_bicubic"));
  if (size.width == image.width)
    return size.height == image.height ? image : resize_rows_8bit(image, size.height);
  Image out = resize_columns_8bit(image, size.width);
  if (size.height != image.height) out = resize_rows_8bit(out, size.height);
  return out;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "resize_pillow_bicubic: no host memory"};
}

Result<Image> resize_torchvision_bicubic(const Image& image, Size size) try {
  VLR_RETURN_IF_ERROR(check(image, size, "resize_torchvision_bicubic"));
  if (size.width == image.width && size.height == image.height) return image;

  const auto out_row = static_cast<size_t>(3 * size.width);
  std::vector<float> middle(out_row *
                            static_cast<size_t>(image.height));  // [image.height, size.width, 3]
  const Floating across = floating(image.width, size.width);
  std::vector<float> line(static_cast<size_t>(3 * image.width));
  for (int64_t y = 0; y < image.height; ++y) {
    const uint8_t* in = image.rgb.data() + 3 * y * image.width;
    std::copy(in, in + line.size(), line.begin());
    float* out = middle.data() + static_cast<size_t>(y) * out_row;
    for (const Window& window : across.windows) {
      const float* weight = &across.weights[static_cast<size_t>(window.weights_at)];
      const float* pixel = &line[static_cast<size_t>(3 * window.first)];
      float r = 0, g = 0, b = 0;
      for (int64_t k = 0; k < window.count; ++k, pixel += 3) {
        r += weight[k] * pixel[0];
        g += weight[k] * pixel[1];
        b += weight[k] * pixel[2];
      }
      *out++ = r, *out++ = g, *out++ = b;
    }
  }

  Image result{size.width, size.height,
               std::vector<uint8_t>(out_row * static_cast<size_t>(size.height))};
  const Floating down = floating(image.height, size.height);
  std::vector<float> sum(out_row);
  for (int64_t y = 0; y < size.height; ++y) {
    const Window& window = down.windows[static_cast<size_t>(y)];
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t k = 0; k < window.count; ++k) {
      const float weight = down.weights[static_cast<size_t>(window.weights_at + k)];
      const float* in = middle.data() + static_cast<size_t>(window.first + k) * out_row;
      for (size_t i = 0; i < out_row; ++i) sum[i] += weight * in[i];
    }
    // Adding and taking away 1.5 * 2^23 leaves no fraction bits: rounds to nearest, halves to even.
    constexpr float kRound = 12582912.0f;
    uint8_t* out = result.rgb.data() + static_cast<size_t>(y) * out_row;
    for (size_t i = 0; i < out_row; ++i) {
      const float v = std::clamp(sum[i], 0.0f, 255.0f);
      out[i] = static_cast<uint8_t>(static_cast<int32_t>((v + kRound) - kRound));
    }
  }
  return result;
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "resize_torchvision_bicubic: no host memory"};
}

}  // namespace vlr
