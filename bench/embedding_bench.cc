// embedding: a batch of text, and one of image documents.
#include "bench/support/rowwise.h"
#include "bench/support/shapes.h"
#include "kernels/embedding/embedding.h"

namespace vlr::bench {
namespace {
using ops::Embedding;

std::vector<Shape> shapes(Device device, std::span<const Axis> axes) {
  const auto shape = [&](DType dtype, const char* label, int64_t rows, int64_t dim, int64_t vocab,
                         int64_t visual) {
    return Shape(axes, dtype, label,
                 {{"rows", rows}, {"dim", dim}, {"vocab", vocab}, {"visual", visual}});
  };
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  if (device == Device::kCpu) {
    return {shape(f32, "demo", 1000, 256, 16128, 0),
            shape(f32, "demo_images", 1000, 256, 16128, visual_share(1000))};
  }
  return {shape(bf16, "8b", 8192, k8b.hidden, kVocabSize, 0),
          shape(bf16, "8b_images", 8192, k8b.hidden, kVocabSize, visual_share(8192)),
          shape(bf16, "2b", 8192, k2b.hidden, kVocabSize, 0),
          shape(DType::kF16, "8b", 8192, k8b.hidden, kVocabSize, 0)};
}

Setup<Embedding> make(Operands& o, const Shape& s) {
  using A = Embedding::Args;
  if (s["vocab"] < 1) throw std::invalid_argument("embedding: vocab must be at least 1");
  std::vector<int32_t> ids;
  std::mt19937 rng(1);
  for (int64_t t = 0; t < s["rows"]; ++t)
    ids.push_back(static_cast<int32_t>(rng() % static_cast<uint32_t>(s["vocab"])));
  A a;
  a.ids = o.copy_of("ids", ids, {s["rows"]});
  a.visual_row = o.copy_of("visual_row", visual_rows(s["rows"], s["visual"]), {s["rows"]});
  a.table = o.weights("table", {s["vocab"], s["dim"]}, weight_dtype(s.dtype));
  if (s["visual"] > 0) a.visual = o.random("visual", {s["visual"], s["dim"]}, s.dtype);
  a.y = o.output("y", {s["rows"], s["dim"]}, s.dtype);
  auto setup = rowwise<Embedding>(a, {&A::ids, &A::visual_row}, {&A::y});
  reference_computes_last(setup, 600);  // the end of an image, text
  return setup;
}

Shape shape_of(const Embedding::Args& a, std::span<const Axis> axes) {
  return {axes,
          a.y.dtype,
          "",
          {{"rows", a.y.dim(0)},
           {"dim", a.y.dim(1)},
           {"vocab", a.table.dim(0)},
           {"visual", a.visual.defined() ? a.visual.dim(0) : 0}}};
}

}  // namespace

OpLab embedding_lab() {
  return op_lab<Embedding>({.axes = {{"rows", 8192},
                                     {"dim", 4096},
                                     {"vocab", kVocabSize},
                                     {"visual", 0, "tokens of images"}},
                            .shapes = shapes,
                            .make = make,
                            .shape_of = shape_of});
}

}  // namespace vlr::bench
