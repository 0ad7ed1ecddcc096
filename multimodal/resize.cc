#include "multimodal/resize.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <new>
#include <optional>
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

// `rows` begins at the window's first row.
void apply(const FixedPoint& f, const Window& w, const uint8_t* rows, int64_t stride, int64_t n,
           uint8_t* out) {
  const std::span<const WeightPair> weights(f.weights);
  media::weighted_rows(
      rows, stride, w.count,
      weights.subspan(static_cast<size_t>(w.weights_at), static_cast<size_t>((w.count + 1) / 2)), n,
      out);
}

// Columns of a tile of 32 rows become rows of 96 bytes (3 colours x 32), one for every pixel
// column, which the same inner loop then weighs.
class ColumnPass {
 public:
  static constexpr int64_t kTile = 32;

  ColumnPass(int64_t in, int64_t out)
      : in_row_(3 * in),
        out_row_(3 * out),
        weights_(fixed_point(in, out)),
        in_tile_(static_cast<size_t>(in_row_ * kTile)),
        out_tile_(static_cast<size_t>(out_row_ * kTile)),
        surplus_(static_cast<size_t>(out_row_)) {}

  // num_rows of 1 to kTile rows, in: [num_rows, in, 3], out: [num_rows, out, 3]
  void run(const uint8_t* in, int64_t num_rows, uint8_t* out) {
    constexpr int64_t kHalf = kTile / 2, kLanes = 3 * kTile;
    for (int64_t half = 0; half < kTile; half += kHalf) {
      std::array<const uint8_t*, kHalf> rows;
      for (int64_t i = 0; i < kHalf; ++i)
        rows[static_cast<size_t>(i)] = in + std::min(half + i, num_rows - 1) * in_row_;
      media::rows_to_columns(rows.data(), in_row_, in_tile_.data() + half, kTile);
    }
    uint8_t* column = out_tile_.data();
    for (const Window& window : weights_.windows) {
      apply(weights_, window, in_tile_.data() + window.first * kLanes, kLanes, kLanes, column);
      column += kLanes;
    }
    for (int64_t half = 0; half < kTile; half += kHalf) {
      std::array<uint8_t*, kHalf> rows;
      for (int64_t i = 0; i < kHalf; ++i)
        rows[static_cast<size_t>(i)] =
            half + i < num_rows ? out + (half + i) * out_row_ : surplus_.data();
      media::columns_to_rows(out_tile_.data() + half, kTile, out_row_, rows.data());
    }
  }

 private:
  int64_t in_row_, out_row_;  // bytes
  FixedPoint weights_;
  std::vector<uint8_t> in_tile_;   // [in, 3, kTile]
  std::vector<uint8_t> out_tile_;  // [out, 3, kTile]
  std::vector<uint8_t> surplus_;   // takes rows below the picture
};

// Rows come in tiles, go through the pass over columns, wait until a row of the result has all that
// it is a sum of, and leave.
class PillowBicubicSink : public RowSink {
 public:
  PillowBicubicSink(Size size, RowSink& next) : size_(size), next_(next) {}

  Status start(int64_t width, int64_t height) override {
    VLR_RETURN_IF_ERROR(next_.start(size_.width, size_.height));
    row_ = 3 * size_.width;
    if (width != size_.width) {
      columns_.emplace(width, size_.width);
      tile_.resize(static_cast<size_t>(3 * width * ColumnPass::kTile));
    }
    if (height != size_.height) rows_ = fixed_point(height, size_.height);
    int64_t most = 1;
    for (const Window& w : rows_.windows) most = std::max(most, w.count);
    // What waits and a tile, and that twice, so that what waits is seldom moved.
    capacity_ = 2 * (most + ColumnPass::kTile);
    waiting_.resize(static_cast<size_t>(row_ * capacity_));
    return {};
  }

  std::span<uint8_t> buffer() override {
    if (columns_) return tile_;
    return std::span(waiting_).subspan(static_cast<size_t>((end_ - begin_) * row_));
  }

  void put(int64_t num_rows) override {
    if (columns_) columns_->run(tile_.data(), num_rows, row(end_));
    end_ += num_rows;
    int64_t needed = end_;  // the first row that a coming row of the result is a sum of
    for (; y_ < size_.height; ++y_) {
      const Window w =
          rows_.windows.empty() ? Window{y_, 1} : rows_.windows[static_cast<size_t>(y_)];
      needed = std::min(w.first, end_);
      if (w.first + w.count > end_) break;
      if (rows_.windows.empty())
        std::copy_n(row(w.first), row_, next_.buffer().data());
      else
        apply(rows_, w, row(w.first), row_, row_, next_.buffer().data());
      next_.put(1);
    }
    if (capacity_ - (end_ - begin_) < ColumnPass::kTile) {
      std::memmove(waiting_.data(), row(needed), static_cast<size_t>((end_ - needed) * row_));
      begin_ = needed;
    }
  }

 private:
  uint8_t* row(int64_t y) { return waiting_.data() + (y - begin_) * row_; }

  Size size_;
  RowSink& next_;
  std::optional<ColumnPass> columns_;  // nothing when the width stays
  FixedPoint rows_;                    // empty when the height stays
  std::vector<uint8_t> tile_;          // [kTile, width, 3], for columns_
  std::vector<uint8_t>
      waiting_;      // [capacity_, size_.width, 3]: rows [begin_, end_), then free ones
  int64_t row_ = 0;  // bytes
  int64_t capacity_ = 0, begin_ = 0, end_ = 0;
  int64_t y_ = 0;  // next row of the result
};

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
  ImageSink out;
  VLR_RETURN_IF_ERROR(put_image(image, *pillow_bicubic_sink(size, out)));
  return out.take();
} catch (const std::bad_alloc&) {
  return {Code::kOutOfMemory, "resize_pillow_bicubic: no host memory"};
}

std::unique_ptr<RowSink> pillow_bicubic_sink(Size size, RowSink& next) {
  return std::make_unique<PillowBicubicSink>(size, next);
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
