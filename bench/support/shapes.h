/// The models' real shapes, and the batches that the lab takes: 8,192 tokens or 16,384 patches on a
/// GPU, 512 or 1,024 of the 2B model and the demo checkpoint's on the host.
#ifndef VLR_BENCH_SUPPORT_SHAPES_H_
#define VLR_BENCH_SUPPORT_SHAPES_H_

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/support/op_lab.h"
#include "kernels/core/tensor.h"

namespace vlr::bench {

constexpr int64_t kHeadDim = 128;  // of the text decoders
constexpr int64_t kVocabSize = 151936;
constexpr int64_t kPatchDim = 3 * 2 * 16 * 16;

struct TextModel {
  const char* name;
  int64_t hidden, heads, kv_heads, mlp;
};
constexpr TextModel k8b = {"8b", 4096, 32, 8, 12288};
constexpr TextModel k2b = {"2b", 2048, 16, 8, 6144};
constexpr TextModel kDemo = {"demo", 256, 4, 2, 768};

struct VisionModel {
  const char* name;
  int64_t hidden, heads, head_dim, mlp;
};
constexpr VisionModel k8bVision = {"8b_vision", 1152, 16, 72, 4304};
constexpr VisionModel k2bVision = {"2b_vision", 1024, 16, 64, 4096};
constexpr VisionModel kDemoVision = {"demo_vision", 144, 2, 72, 576};

/// Weights are stored in 16 bits, whatever activations are.
constexpr DType weight_dtype(DType activations) {
  return activations == DType::kF32 ? DType::kBF16 : activations;
}

using Values = std::initializer_list<std::pair<std::string_view, int64_t>>;

/// A decoder's residual stream: of a large batch and of one short pair. Axes: rows, dim.
inline std::vector<Shape> text_rows(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const char* label, int64_t rows, int64_t dim) {
    return Shape(axes, dtype, label, {{"rows", rows}, {"dim", dim}});
  };
  if (device == Device::kCpu)
    return {shape(DType::kF32, "2b", 512, k2b.hidden), shape(DType::kF32, "demo", 1000, 256)};
  return {shape(DType::kBF16, "8b", 8192, k8b.hidden), shape(DType::kBF16, "2b", 8192, k2b.hidden),
          shape(DType::kBF16, "8b_pair", 128, k8b.hidden),
          shape(DType::kF16, "8b", 8192, k8b.hidden)};
}

/// A vision tower's.
inline std::vector<Shape> vision_rows(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const char* label, int64_t rows, int64_t dim) {
    return Shape(axes, dtype, label, {{"rows", rows}, {"dim", dim}});
  };
  if (device == Device::kCpu)
    return {shape(DType::kF32, "2b_vision", 1024, 1024),
            shape(DType::kF32, "demo_vision", 1000, 144)};
  return {shape(DType::kBF16, "8b_vision", 16384, k8bVision.hidden),
          shape(DType::kBF16, "2b_vision", 16384, k2bVision.hidden),
          shape(DType::kBF16, "8b_pictures", 38400, k8bVision.hidden),  // eight of 1280 x 960
          shape(DType::kF16, "8b_vision", 16384, k8bVision.hidden)};
}

/// The gated values of a decoder's MLP.
inline std::vector<Shape> mlp_rows(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const char* label, int64_t rows, int64_t dim) {
    return Shape(axes, dtype, label, {{"rows", rows}, {"dim", dim}});
  };
  if (device == Device::kCpu)
    return {shape(DType::kF32, "2b_mlp", 512, k2b.mlp), shape(DType::kF32, "demo_mlp", 1000, 768)};
  return {shape(DType::kBF16, "8b_mlp", 8192, k8b.mlp),
          shape(DType::kBF16, "2b_mlp", 8192, k2b.mlp),
          shape(DType::kBF16, "8b_pair_mlp", 128, k8b.mlp),
          shape(DType::kF16, "8b_mlp", 8192, k8b.mlp)};
}

/// The shape with another value, or list, of an axis.
inline Shape with(Shape s, std::string_view axis, std::vector<int64_t> values) {
  if (const Status set = s.set(axis, std::move(values)); !set.ok())
    throw std::invalid_argument(set.message());
  return s;
}
inline Shape with(Shape s, std::string_view axis, int64_t value) {
  return with(std::move(s), axis, std::vector<int64_t>{value});
}
/// All shapes with every value of an axis of words.
inline std::vector<Shape> with_all(const std::vector<Shape>& shapes, const Axis& axis) {
  std::vector<Shape> out;
  for (size_t v = 0; v < axis.names.size(); ++v) {
    for (const Shape& s : shapes) out.push_back(with(s, axis.name, static_cast<int64_t>(v)));
  }
  return out;
}

/// [count, 2, pairs]: cosines and sines of some angle, so that turning in place, again and again,
/// keeps lengths.
inline std::shared_ptr<std::vector<float>> rotations(int64_t count, int64_t pairs) {
  auto table = std::make_shared<std::vector<float>>();
  for (int64_t t = 0; t < count; ++t) {
    for (const bool sine : {false, true}) {
      for (int64_t j = 0; j < pairs; ++j) {
        const float angle = static_cast<float>(t * 31 + j * 7);
        table->push_back(sine ? std::sin(angle) : std::cos(angle));
      }
    }
  }
  return table;
}

/// For each of `count` tokens its row among the `visual` ones; -1: text. Images have 1,200 tokens, as
/// those of 1280 x 960 pixels do, and text is around them.
inline std::vector<int32_t> visual_rows(int64_t count, int64_t visual) {
  constexpr int64_t kImage = 1200;
  visual = std::min(visual, count);
  const int64_t images = (visual + kImage - 1) / kImage, text = count - visual;
  std::vector<int32_t> rows;
  int32_t next = 0;
  for (int64_t i = 0; i <= images; ++i) {
    const int64_t before = text * (i + 1) / (images + 1) - text * i / (images + 1);
    rows.insert(rows.end(), static_cast<size_t>(before), -1);
    for (int64_t t = 0; t < kImage && next < visual; ++t) rows.push_back(next++);
  }
  return rows;
}
/// Of a batch of such documents, with 80 tokens of text an image.
constexpr int64_t visual_share(int64_t count) { return count / 16 * 15; }

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_SHAPES_H_
