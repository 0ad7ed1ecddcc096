/// The models' real shapes, and the batches that benches take: 8,192 tokens or 16,384 patches on a
/// GPU, 512 or 1,024 of the 2B model and the demo checkpoint's on the host.
#ifndef VLR_BENCH_SUPPORT_SHAPES_H_
#define VLR_BENCH_SUPPORT_SHAPES_H_

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bench/support/op_bench.h"
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

struct VisionModel {
  const char* name;
  int64_t hidden, heads, head_dim, mlp;
};
constexpr VisionModel k8bVision = {"8b_vision", 1152, 16, 72, 4304};
constexpr VisionModel k2bVision = {"2b_vision", 1024, 16, 64, 4096};

/// Weights are stored in 16 bits, whatever activations are.
constexpr DType weight_dtype(DType activations) {
  return activations == DType::kF32 ? DType::kBF16 : activations;
}

/// [rows, dim] activations.
struct Rows {
  int64_t rows, dim;
  DType dtype;
  std::string name() const {
    return std::string(dtype_name(dtype)) + "/" + std::to_string(rows) + "x" + std::to_string(dim);
  }
};

/// A decoder's residual stream: of a large batch and of one short pair.
inline std::vector<Rows> text_rows(const Machine& machine) {
  if (!machine.is_gpu()) return {{512, 2048, DType::kF32}, {1000, 256, DType::kF32}};
  return {{8192, k8b.hidden, DType::kBF16},
          {8192, k2b.hidden, DType::kBF16},
          {128, k8b.hidden, DType::kBF16},
          {8192, k8b.hidden, DType::kF16}};
}

/// A vision tower's.
inline std::vector<Rows> vision_rows(const Machine& machine) {
  if (!machine.is_gpu()) return {{1024, 1024, DType::kF32}, {1000, 144, DType::kF32}};
  return {{16384, k8bVision.hidden, DType::kBF16},
          {16384, k2bVision.hidden, DType::kBF16},
          {38400, k8bVision.hidden, DType::kBF16},  // eight pictures of 1280 x 960
          {16384, k8bVision.hidden, DType::kF16}};
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

/// For each of `count` tokens its row among the visual ones: of every 1,280 tokens 40 are text,
/// 1,200 an image of 1280 x 960 pixels, 40 text. -1: text.
inline std::vector<int32_t> visual_rows(int64_t count) {
  std::vector<int32_t> rows;
  int32_t next = 0;
  for (int64_t t = 0; t < count; ++t)
    rows.push_back(t % 1280 < 40 || t % 1280 >= 1240 ? -1 : next++);
  return rows;
}

}  // namespace vlr::bench

#endif  // VLR_BENCH_SUPPORT_SHAPES_H_
